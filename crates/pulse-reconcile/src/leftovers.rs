//! Objects that are not desired any more: disruption budgets, and those of a console that was switched off. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube_core::ResourceExt;
use pulse_crd::PulseIngest;
use pulse_crd::names::{self, Role};

use crate::desired::ChildObjects;
use crate::observed::Observed;

/// The object, unless it is being deleted.
fn kept<K: ResourceExt>(found: Option<&Arc<K>>) -> Option<Arc<K>> {
    found.filter(|found| found.meta().deletion_timestamp.is_none()).cloned()
}

/// Objects to delete.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "kinds of Kubernetes")]
pub struct Leftovers {
    pub disruption_budgets: Vec<Arc<PodDisruptionBudget>>,
    pub service: Option<Arc<Service>>,
    pub service_account: Option<Arc<ServiceAccount>>,
    pub deployment: Option<Arc<Deployment>>,
}

impl Leftovers {
    /// The objects that are not among the `desired` ones, and are not being deleted yet.
    pub fn of(cr: &PulseIngest, observed: &Observed, desired: &ChildObjects) -> Self {
        let wanted: Vec<String> = desired.disruption_budgets.iter().map(ResourceExt::name_any).collect();
        let others = observed.disruption_budgets.iter().filter(|(name, _)| !wanted.contains(name));
        let disruption_budgets = others.filter_map(|(_, budget)| kept(Some(budget))).collect();
        if cr.spec.console.enabled {
            return Self { disruption_budgets, ..Self::default() };
        }
        let name = names::child(cr, Role::Console.component());
        Self {
            disruption_budgets,
            service: kept(observed.services.get(&name)),
            service_account: kept(observed.service_accounts.get(&name)),
            deployment: kept(observed.deployments.get(&Role::Console)),
        }
    }

    /// Kind and name of each object.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        let Self { disruption_budgets, service, service_account, deployment } = self;
        let budgets = disruption_budgets.iter().map(|found| format!("PodDisruptionBudget {}", found.name_any()));
        let service = service.as_ref().map(|found| format!("Service {}", found.name_any()));
        let account = service_account.as_ref().map(|found| format!("ServiceAccount {}", found.name_any()));
        let deployment = deployment.as_ref().map(|found| format!("Deployment {}", found.name_any()));
        budgets.chain([service, account, deployment].into_iter().flatten())
    }

    /// Whether a part of a console is to be deleted.
    pub fn has_console(&self) -> bool {
        self.service.is_some() || self.service_account.is_some() || self.deployment.is_some()
    }
}

#[cfg(test)]
mod tests {
    use pulse_crd::fixture::pulse_ingest;
    use serde_json::json;

    use super::*;

    #[test]
    fn leftovers_are_only_those_of_a_console_that_is_off() {
        let named = |name: &str, deleted: Option<&str>| {
            let metadata = json!({ "name": name, "deletionTimestamp": deleted });
            serde_json::from_value::<Service>(json!({ "metadata": metadata })).expect("a Service")
        };
        let observed = |console: Service| Observed {
            services: [named("main-api", None), console]
                .map(|service| (service.name_any(), Arc::new(service)))
                .into_iter()
                .collect(),
            ..Observed::default()
        };
        let left = |enabled: bool, deleted| {
            let cr = pulse_ingest(json!({ "console": { "enabled": enabled } }));
            Leftovers::of(&cr, &observed(named("main-console", deleted)), &ChildObjects::default())
                .names()
                .collect::<Vec<_>>()
        };
        assert_eq!(left(false, None), ["Service main-console"]);
        assert_eq!(left(true, None), [""; 0]);
        assert_eq!(left(false, Some("2026-01-02T03:04:05Z")), [""; 0], "it is being deleted");
    }
}
