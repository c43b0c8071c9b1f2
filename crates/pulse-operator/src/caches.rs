//! The caches of all watched kinds.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use pulse_crd::PulseIngest;
use pulse_reconcile::observed::Labelled;

use crate::cache::Cache;
use crate::instances::Instances;

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
