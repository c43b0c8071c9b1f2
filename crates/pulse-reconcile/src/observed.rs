//! What was observed of the cluster at the start of a reconcile. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube_core::{Resource, ResourceExt};
use pulse_crd::names::{self, Role};
use pulse_crd::{PulseIngest, SecretKey};

use crate::secrets::SecretRead;

/// Objects of one kind, by name.
pub type ByName<K> = BTreeMap<String, Arc<K>>;

/// Objects that carry the labels of an instance, whether or not it owns them.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "kinds of Kubernetes")]
pub struct Labelled {
    pub deployments: ByName<Deployment>,
    pub jobs: ByName<Job>,
    pub pods: ByName<Pod>,
    pub services: ByName<Service>,
    pub service_accounts: ByName<ServiceAccount>,
    pub disruption_budgets: ByName<PodDisruptionBudget>,
}

/// The observed state of an instance.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Deployments, by role.
    pub deployments: BTreeMap<Role, Arc<Deployment>>,
    /// Services, by name.
    pub services: ByName<Service>,
    /// ServiceAccounts, by name.
    pub service_accounts: ByName<ServiceAccount>,
    /// PodDisruptionBudgets, by name.
    pub disruption_budgets: ByName<PodDisruptionBudget>,
    /// Migration Jobs.
    pub jobs: Vec<Arc<Job>>,
    /// Pods of migration Jobs.
    pub job_pods: Vec<Arc<Pod>>,
    /// Why Kubernetes rejects the pods of a migration Job, by the name of the Job.
    pub job_rejections: BTreeMap<String, String>,
    /// Pods, by role.
    pub pods: BTreeMap<Role, Vec<Arc<Pod>>>,
    /// Results of reading the referenced Secrets.
    pub secrets: BTreeMap<SecretKey, SecretRead>,
}

/// Keeps the objects that `cr` owns, and groups them by role. Pods are kept by label, because their ReplicaSet or Job
/// owns them.
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

/// Whether the Job runs, and none of its pods exists.
pub fn lacks_pods(job: &Job, observed: &Observed) -> bool {
    let status = job.status.as_ref();
    let has_ended = status.is_some_and(|status| status.conditions.iter().flatten().any(|found| found.status == "True"));
    let name = Some(job.name_any());
    let has_pods =
        observed.job_pods.iter().any(|pod| pod.labels().get("batch.kubernetes.io/job-name") == name.as_ref());
    job.metadata.deletion_timestamp.is_none() && !has_ended && !has_pods
}
