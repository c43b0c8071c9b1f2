//! The objects of a console that was switched off. Pure.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use kube_core::ResourceExt;
use pulse_crd::PulseIngest;
use pulse_crd::names::{self, Role};

use crate::observed::Observed;

/// The object, unless it is being deleted.
fn kept<K: ResourceExt>(found: Option<&Arc<K>>) -> Option<Arc<K>> {
    found.filter(|found| found.meta().deletion_timestamp.is_none()).cloned()
}

/// Objects to delete. Disruption budgets are not among them: those that are not desired are always deleted.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "kinds of Kubernetes")]
pub struct Leftovers {
    pub service: Option<Arc<Service>>,
    pub service_account: Option<Arc<ServiceAccount>>,
    pub deployment: Option<Arc<Deployment>>,
}

impl Leftovers {
    /// The objects that are left of the console, and are not being deleted yet.
    pub fn of(cr: &PulseIngest, observed: &Observed) -> Self {
        if cr.spec.console.enabled {
            return Self::default();
        }
        let name = names::child(cr, Role::Console.component());
        Self {
            service: kept(observed.services.get(&name)),
            service_account: kept(observed.service_accounts.get(&name)),
            deployment: kept(observed.deployments.get(&Role::Console)),
        }
    }

    /// Kind and name of each object.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let Self { service, service_account, deployment } = self;
        let service = service.as_ref().map(|found| format!("Service {}", found.name_any()));
        let account = service_account.as_ref().map(|found| format!("ServiceAccount {}", found.name_any()));
        let deployment = deployment.as_ref().map(|found| format!("Deployment {}", found.name_any()));
        [service, account, deployment].into_iter().flatten()
    }

    /// Whether there is nothing to delete.
    pub fn is_empty(&self) -> bool {
        self.names().next().is_none()
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
            Leftovers::of(&cr, &observed(named("main-console", deleted))).names().collect::<Vec<_>>()
        };
        assert_eq!(left(false, None), ["Service main-console"]);
        assert_eq!(left(true, None), [""; 0]);
        assert_eq!(left(false, Some("2026-01-02T03:04:05Z")), [""; 0], "it is being deleted");
    }
}
