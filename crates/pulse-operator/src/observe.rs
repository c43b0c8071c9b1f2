//! Observes the cluster once at the start of a reconcile. I/O: reads the watch caches, and Secrets by `get`.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Api, Client, Resource, ResourceExt};
use pulse_crd::names::{self, Role};
use pulse_crd::{PulseIngest, SecretKey};

use crate::cache::Cache;
use crate::client::api_message;
use crate::instances::Instances;
use crate::secrets::{SecretRead, SecretValue};

/// Caches of the objects that the operator manages, by label.
#[derive(Clone)]
pub(crate) struct Caches {
    /// `PulseIngest` objects.
    pub(crate) objects: Instances,
    /// Deployments.
    pub(crate) deployments: Cache<Deployment>,
    /// Jobs.
    pub(crate) jobs: Cache<Job>,
    /// Pods.
    pub(crate) pods: Cache<Pod>,
    /// Services.
    pub(crate) services: Cache<Service>,
    /// ServiceAccounts.
    pub(crate) service_accounts: Cache<ServiceAccount>,
    /// PodDisruptionBudgets.
    pub(crate) disruption_budgets: Cache<PodDisruptionBudget>,
}

/// Objects of one kind, by name.
pub(crate) type ByName<K> = BTreeMap<String, Arc<K>>;

/// Objects that carry the labels of an instance, whether or not it owns them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labelled {
    pub(crate) deployments: ByName<Deployment>,
    pub(crate) jobs: ByName<Job>,
    pub(crate) pods: ByName<Pod>,
    pub(crate) services: ByName<Service>,
    pub(crate) service_accounts: ByName<ServiceAccount>,
    pub(crate) disruption_budgets: ByName<PodDisruptionBudget>,
}

/// The observed state of an instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// Deployments, by role.
    pub(crate) deployments: BTreeMap<Role, Arc<Deployment>>,
    /// Services, by name.
    pub(crate) services: ByName<Service>,
    /// ServiceAccounts, by name.
    pub(crate) service_accounts: ByName<ServiceAccount>,
    /// PodDisruptionBudgets, by name.
    pub(crate) disruption_budgets: ByName<PodDisruptionBudget>,
    /// Migration Jobs.
    pub(crate) jobs: Vec<Arc<Job>>,
    /// Pods of migration Jobs.
    pub(crate) job_pods: Vec<Arc<Pod>>,
    /// Why Kubernetes rejects the pods of a migration Job, by the name of the Job.
    pub(crate) job_rejections: BTreeMap<String, String>,
    /// Pods, by role.
    pub(crate) pods: BTreeMap<Role, Vec<Arc<Pod>>>,
    /// Results of reading the referenced Secrets.
    pub(crate) secrets: BTreeMap<SecretKey, SecretRead>,
}

impl Caches {
    /// Returns the cached objects with the labels of `cr`. Needs no client.
    pub(crate) fn labelled(&self, cr: &PulseIngest) -> Labelled {
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

/// Keeps the objects that `cr` owns, and groups them by role. Pods are kept by label, because their ReplicaSet or Job
/// owns them.
pub(crate) fn children(labelled: Labelled, cr: &PulseIngest) -> Observed {
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

/// Whether the Job runs, and none of its pods exists.
pub(crate) fn lacks_pods(job: &Job, observed: &Observed) -> bool {
    let status = job.status.as_ref();
    let has_ended = status.is_some_and(|status| status.conditions.iter().flatten().any(|found| found.status == "True"));
    let name = Some(job.name_any());
    let has_pods =
        observed.job_pods.iter().any(|pod| pod.labels().get("batch.kubernetes.io/job-name") == name.as_ref());
    job.metadata.deletion_timestamp.is_none() && !has_ended && !has_pods
}

/// Returns all Secret keys that the roles need, for the active and for the desired revision.
pub(crate) fn referenced(cr: &PulseIngest) -> Vec<SecretKey> {
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

/// Reads the referenced Secrets. A Secret is only missing if the API server answers "not found"; any other error makes
/// it unreadable.
pub(crate) async fn secrets(client: &Client, cr: &PulseIngest) -> BTreeMap<SecretKey, SecretRead> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &names::namespace(cr));
    let mut read: BTreeMap<String, Result<Option<Secret>, kube::Error>> = BTreeMap::new();
    let mut results = BTreeMap::new();
    for key in referenced(cr) {
        if !read.contains_key(&key.name) {
            read.insert(key.name.clone(), api.get_opt(&key.name).await);
        }
        let result = match read.get(&key.name) {
            Some(Ok(Some(secret))) => match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
                Some(value) => SecretRead::Found(SecretValue::new(value.0.clone())),
                None => SecretRead::Missing(format!("Secret {} has no key {}", key.name, key.key)),
            },
            Some(Ok(None)) => SecretRead::Missing(format!("Secret {} does not exist", key.name)),
            Some(Err(error)) => {
                SecretRead::Unreadable(format!("Secret {} cannot be read: {}", key.name, api_message(error)))
            }
            None => continue,
        };
        results.insert(key, result);
    }
    results
}
