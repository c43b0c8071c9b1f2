//! What is there, read once at the start of a reconcile. I/O: the caches of the watches, and the Secrets by `get`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::reflector::Store;
use kube::{Api, Client, Resource, ResourceExt};

use crate::apply::api_message;
use crate::cache::Cache;
use crate::crd::{PulseIngest, SecretKey};
use crate::names::{self, Role};
use crate::secrets::{Hidden, SecretRead};

/// The caches of everything that we made, by label.
#[derive(Clone)]
pub struct Caches {
    /// The objects themselves.
    pub objects: Store<PulseIngest>,
    /// Deployments of ours.
    pub deployments: Cache<Deployment>,
    /// Jobs of ours.
    pub jobs: Cache<Job>,
    /// Pods of ours.
    pub pods: Cache<Pod>,
    /// Services of ours.
    pub services: Cache<Service>,
    /// ServiceAccounts of ours.
    pub service_accounts: Cache<ServiceAccount>,
    /// Disruption budgets of ours.
    pub disruption_budgets: Cache<PodDisruptionBudget>,
}

/// Objects of one kind.
pub type ByName<K> = BTreeMap<String, Arc<K>>;

/// What carries the labels of an object, whoever owns it.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the kinds")]
pub struct Labelled {
    pub deployments: ByName<Deployment>,
    pub jobs: ByName<Job>,
    pub pods: ByName<Pod>,
    pub services: ByName<Service>,
    pub service_accounts: ByName<ServiceAccount>,
    pub disruption_budgets: ByName<PodDisruptionBudget>,
}

/// What is there.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// By role.
    pub deployments: BTreeMap<Role, Arc<Deployment>>,
    /// By name.
    pub services: ByName<Service>,
    /// By name.
    pub service_accounts: ByName<ServiceAccount>,
    /// By name.
    pub disruption_budgets: ByName<PodDisruptionBudget>,
    /// Of migrations.
    pub jobs: Vec<Arc<Job>>,
    /// Of migrations.
    pub job_pods: Vec<Arc<Pod>>,
    /// By role.
    pub pods: BTreeMap<Role, Vec<Arc<Pod>>>,
    /// What came of reading each Secret that is referred to.
    pub secrets: BTreeMap<SecretKey, SecretRead>,
}

impl Caches {
    /// What they hold for an object; no client needed.
    pub fn labelled(&self, cr: &PulseIngest) -> Labelled {
        Labelled {
            deployments: self.deployments.of(cr),
            jobs: self.jobs.of(cr),
            pods: self.pods.of(cr),
            services: self.services.of(cr),
            service_accounts: self.service_accounts.of(cr),
            disruption_budgets: self.disruption_budgets.of(cr),
        }
    }
}

/// What of it belongs to the object, and in which part.
pub fn children(labelled: Labelled, cr: &PulseIngest) -> Observed {
    let mut observed = Observed {
        services: owned(labelled.services, cr),
        service_accounts: owned(labelled.service_accounts, cr),
        disruption_budgets: owned(labelled.disruption_budgets, cr),
        jobs: owned(labelled.jobs, cr).into_values().collect(),
        ..Observed::default()
    };
    let mut deployments = owned(labelled.deployments, cr);
    for role in Role::ALL {
        let deployment = deployments.remove(&names::child(cr, role.component()));
        observed.deployments.extend(deployment.map(|deployment| (role, deployment)));
    }
    for pod in labelled.pods.into_values() {
        let component = pod.labels().get("app.kubernetes.io/component").map(String::as_str);
        match Role::ALL.into_iter().find(|role| Some(role.component()) == component) {
            Some(role) => observed.pods.entry(role).or_default().push(pod),
            None => observed.job_pods.push(pod),
        }
    }
    observed
}

fn owned<K: Resource<DynamicType = ()>>(mut objects: ByName<K>, cr: &PulseIngest) -> ByName<K> {
    objects.retain(|_, object| names::is_owned(object.meta(), cr));
    objects
}

/// Every key of a Secret that the roles need, of the revision that runs and of the one that is wanted.
pub fn referenced(cr: &PulseIngest) -> Vec<SecretKey> {
    let spec = &cr.spec;
    let active = cr.status.as_ref().and_then(|status| status.active_revision.as_ref());
    let mut keys = vec![spec.database.url_secret_ref.clone(), spec.redis.url_secret_ref.clone()];
    keys.extend(active.map(|revision| revision.database_url_secret_ref.clone()));
    keys.extend(spec.database.ca_secret_ref.clone());
    keys.extend(spec.redis.ca_secret_ref.clone());
    keys.extend(spec.auth.jwt_secret_ref.clone());
    keys.extend(spec.auth.public_key_secret_ref.clone());
    keys.sort();
    keys.dedup();
    keys
}

/// Reads Secrets with `client`; only a definite "not found" is missing.
pub async fn secrets(client: &Client, cr: &PulseIngest) -> BTreeMap<SecretKey, SecretRead> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &cr.namespace().unwrap_or_default());
    let mut read: BTreeMap<String, Result<Option<Secret>, kube::Error>> = BTreeMap::new();
    let mut readings = BTreeMap::new();
    for key in referenced(cr) {
        if !read.contains_key(&key.name) {
            read.insert(key.name.clone(), api.get_opt(&key.name).await);
        }
        let reading = match read.get(&key.name) {
            Some(Ok(Some(secret))) => match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
                Some(value) => SecretRead::Found(Hidden::new(value.0.clone())),
                None => SecretRead::Missing(format!("Secret {} has no key {}", key.name, key.key)),
            },
            Some(Ok(None)) => SecretRead::Missing(format!("Secret {} does not exist", key.name)),
            Some(Err(error)) => {
                SecretRead::Unreadable(format!("Secret {} cannot be read: {}", key.name, api_message(error)))
            }
            None => continue,
        };
        readings.insert(key, reading);
    }
    readings
}
