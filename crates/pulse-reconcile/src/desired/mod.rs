//! Builds the desired objects. Pure: equal inputs give equal bytes, so an unchanged object is not written and an
//! upgrade of the operator restarts no pod.

#[cfg(test)]
mod console_tests;
mod decisions;
mod deployment;
#[cfg(test)]
mod golden;
mod grace;
mod job;
mod pod;
#[cfg(test)]
mod pod_properties;
#[cfg(test)]
mod pod_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod secret_tests;
mod secrets;
mod service;
mod settings;
mod template;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_core::ResourceExt;
use pulse_crd::names::{self, Role};
use pulse_crd::{AutoscalingMode, PulseIngest, Revision};

use self::settings::pod_settings;

pub use decisions::config_map;
pub use job::FINAL_EXIT_CODES;
pub use job::{JobKind, JobRequest};
pub use pod::{CONTAINER, DEV_RELOAD};

/// Inputs besides the spec.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// The active revision. Without it there are no Deployments.
    pub revision: Option<&'a Revision>,
    /// Digests of the Secrets that each role uses.
    pub secrets: BTreeMap<Role, String>,
    /// Migration Job to create.
    pub job: Option<&'a JobRequest>,
    /// Development only: path at which the roles find newer builds of their binary.
    pub dev_reload: Option<&'a Path>,
}

/// All objects of an instance, in the order in which they are applied.
#[derive(Debug, Clone, Default)]
pub struct ChildObjects {
    /// ServiceAccounts, which the pods need to start.
    pub service_accounts: Vec<ServiceAccount>,
    /// Migration Job. It is created and never changed.
    pub migration: Option<Job>,
    /// The Services of the API and of the console.
    pub services: Vec<Service>,
    /// PodDisruptionBudgets, which are applied before the pods that they protect.
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    /// Deployments without `replicas`. The scheduler and the workers come before the API, so the API accepts nothing
    /// that an older worker does not know. The console comes last.
    pub deployments: Vec<(Role, Deployment)>,
    /// Objects that cannot be built, because their pod template is not valid. They stay as they are.
    pub invalid: Vec<InvalidObject>,
}

/// An object with a pod template that is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidObject {
    /// Kind of the object.
    pub kind: &'static str,
    /// Name of the object.
    pub name: String,
    /// Path of the field, and what is wrong with it.
    pub message: String,
}

/// Returns the objects that `cr` should have.
pub fn resources(cr: &PulseIngest, inputs: &Inputs<'_>) -> ChildObjects {
    let Inputs { revision, secrets, job, dev_reload } = inputs;
    let components = Role::of(&cr.spec).map(Role::component).chain([names::MIGRATION]);
    let mut objects = ChildObjects {
        service_accounts: components.filter_map(|component| service_account(cr, component)).collect(),
        services: Role::of(&cr.spec).filter_map(|role| service::service(cr, role)).collect(),
        disruption_budgets: disruption_budgets(cr),
        ..ChildObjects::default()
    };
    let invalid = |kind, name, component: &str, error: String| {
        let field = if component == Role::Worker.component() { "workers" } else { component };
        let field = if component == names::MIGRATION { "migrations" } else { field };
        InvalidObject { kind, name, message: format!("spec.{field}.podTemplate.{error}") }
    };
    if let Some(request) = job {
        match job::job(cr, request) {
            Ok(job) => objects.migration = Some(job),
            Err(error) => objects.invalid.push(invalid("Job", request.name.clone(), names::MIGRATION, error)),
        }
    }
    for (role, revision) in Role::of(&cr.spec).flat_map(|role| revision.map(|revision| (role, revision))) {
        match deployment::deployment(cr, role, revision, secrets.get(&role), *dev_reload) {
            Ok(deployment) => objects.deployments.push((role, deployment)),
            Err(error) => {
                let name = names::child(cr, role.component());
                objects.invalid.push(invalid("Deployment", name, role.component(), error));
            }
        }
    }
    objects
}

/// Returns the service account of a component's pods, unless they have one of the user.
fn service_account(cr: &PulseIngest, component: &str) -> Option<ServiceAccount> {
    let account = &pod_settings(cr, component).0.service_account;
    if account.name.is_some() {
        return None;
    }
    let mut metadata = names::metadata(cr, names::child(cr, component), component);
    if !account.annotations.is_empty() {
        metadata.annotations.get_or_insert_default().extend(account.annotations.clone());
    }
    Some(ServiceAccount {
        metadata,
        // Pods that want the token ask for it themselves.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}

/// A single pod has no budget, because it would block draining its node.
fn disruption_budgets(cr: &PulseIngest) -> Vec<PodDisruptionBudget> {
    let (api, workers, console) = (&cr.spec.api, &cr.spec.workers, &cr.spec.console);
    // Another scaler may run any number of pods. A budget that came and went with their number would be a write each time.
    let has_many_workers = workers.autoscaling.as_ref().map_or(workers.replicas > 1, |scaling| {
        scaling.mode == AutoscalingMode::External || scaling.max_replicas.is_some_and(|max| max > 1)
    });
    let mut budgets = Vec::new();
    if api.autoscaling.is_some() || api.replicas > 1 {
        budgets.push(disruption_budget(cr, Role::Api, IntOrString::Int(1)));
    }
    if cr.spec.scheduler.replicas > 1 {
        budgets.push(disruption_budget(cr, Role::Scheduler, IntOrString::Int(1)));
    }
    if console.enabled && console.replicas > 1 {
        budgets.push(disruption_budget(cr, Role::Console, IntOrString::Int(1)));
    }
    if has_many_workers {
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
            // Pods that are not ready can be evicted.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
