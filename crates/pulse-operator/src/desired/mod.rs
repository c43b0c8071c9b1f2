//! The objects that should be there. Pure: the same inputs give the same bytes, so that an unchanged object is not
//! written and an upgrade of the operator restarts no pod.

mod deployment;
mod job;
mod pod;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::crd::{PulseIngest, Revision};
use crate::names::{self, Role};

pub(crate) use job::FINAL_EXIT_CODES;
pub use job::{JobKind, JobRequest};
pub(crate) use pod::{CONTAINER, DEV_RELOAD};

/// What the objects are made from, besides the spec.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// What runs; without it there are no Deployments yet.
    pub revision: Option<&'a Revision>,
    /// Digests of the Secrets that each role uses.
    pub secrets: BTreeMap<Role, String>,
    /// A migration to run.
    pub job: Option<&'a JobRequest>,
    /// For development: where the roles look for newer builds of their program.
    pub dev_reload: Option<&'a Path>,
}

/// Every object of an ingest, in the order in which it is applied.
#[derive(Debug, Clone, Default)]
pub struct ChildObjects {
    /// Pods cannot start without theirs.
    pub service_accounts: Vec<ServiceAccount>,
    /// Created, never changed.
    pub migration: Option<Job>,
    /// The API's address.
    pub services: Vec<Service>,
    /// Before the pods that they protect.
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    /// Without a number of replicas. First what processes, then what accepts: nothing new is accepted that an older
    /// worker would not know.
    pub deployments: Vec<(Role, Deployment)>,
}

/// The objects that `cr` should have.
pub fn resources(cr: &PulseIngest, inputs: &Inputs<'_>) -> ChildObjects {
    let Inputs { revision, secrets, job, dev_reload } = inputs;
    let mut components: Vec<&str> = Role::ALL.map(Role::component).to_vec();
    components.push(names::MIGRATION);
    let deployments = revision.iter().flat_map(|revision| {
        Role::ALL.map(|role| (role, deployment::deployment(cr, role, revision, secrets.get(&role), *dev_reload)))
    });
    ChildObjects {
        service_accounts: components.iter().map(|component| service_account(cr, component)).collect(),
        migration: job.map(|job| job::job(cr, job)),
        services: vec![api_service(cr)],
        disruption_budgets: disruption_budgets(cr),
        deployments: deployments.collect(),
    }
}

/// No role talks to Kubernetes: no token.
fn service_account(cr: &PulseIngest, component: &str) -> ServiceAccount {
    ServiceAccount {
        metadata: names::metadata(cr, names::child(cr, component), component),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

fn api_service(cr: &PulseIngest) -> Service {
    let component = Role::Api.component();
    Service {
        metadata: names::metadata(cr, names::child(cr, component), component),
        spec: Some(ServiceSpec {
            selector: Some(names::selector(&cr.name_any(), component)),
            ports: Some(vec![ServicePort {
                name: Some("http".into()),
                port: 8000,
                target_port: Some(IntOrString::String("http".into())),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// None for a single pod: it would keep nodes from being drained.
fn disruption_budgets(cr: &PulseIngest) -> Vec<PodDisruptionBudget> {
    let workers = &cr.spec.workers;
    let most_workers = workers.autoscaling.as_ref().map_or(workers.replicas, |scaling| scaling.max_replicas);
    let mut budgets = Vec::new();
    if cr.spec.api.replicas.is_none_or(|replicas| replicas > 1) {
        budgets.push(disruption_budget(cr, Role::Api, IntOrString::Int(1)));
    }
    if most_workers > 1 {
        budgets.push(disruption_budget(cr, Role::Worker, IntOrString::String("50%".into())));
    }
    budgets
}

fn disruption_budget(cr: &PulseIngest, role: Role, unavailable: IntOrString) -> PodDisruptionBudget {
    let component = role.component();
    PodDisruptionBudget {
        metadata: names::metadata(cr, names::child(cr, component), component),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(unavailable),
            selector: Some(names::label_selector(&cr.name_any(), component)),
            // A pod that is not ready anyway may go.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// How many pods of a role there should be, where that follows from the spec alone: not for workers, and not for an API
/// that somebody else scales.
pub fn replicas(cr: &PulseIngest, role: Role) -> Option<i32> {
    let wanted = match role {
        Role::Worker => return None,
        _ if cr.spec.stopped => 0,
        Role::Api => cr.spec.api.replicas?,
        Role::Scheduler => 1,
    };
    Some(wanted.cast_signed())
}
