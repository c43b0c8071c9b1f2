//! The ConfigMap with the decisions for the console, and the objects of a console that was switched off.
//!
//! ConfigMaps are not watched, because a permission to watch them would show those of others. So the ConfigMap is read
//! before it is changed.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::DeleteParams;
use pulse_crd::names::{self, APPLIED, Role};
use pulse_reconcile::done::ApplyReport;
use pulse_reconcile::error::ReconcileError;
use pulse_reconcile::leftovers::Leftovers;

use super::applier::Applier;
use super::object::{Rendered, api_error, key};

impl Applier<'_> {
    /// Creates or changes the ConfigMap with the decisions, unless it is up to date.
    ///
    /// # Errors
    /// [`ReconcileError`] if it cannot be read or written, or has another owner.
    pub(crate) async fn write_decisions(&self, mut desired: ConfigMap) -> Result<(), ReconcileError> {
        let rendered = Rendered::of(&desired);
        let name = desired.name_any();
        let mut report = ApplyReport::default();
        let attempt = async {
            match self.own_config_map(&name).await? {
                Some(live) => self.update(desired, &rendered, &live, &mut report).await.map(drop),
                None => {
                    desired.annotations_mut().insert(APPLIED.into(), rendered.hash.clone());
                    self.create(&desired, &mut report).await.map(drop)
                }
            }
        };
        self.guarded(key::<ConfigMap>(&name), &rendered.hash, attempt).await
    }

    /// Deletes the objects that are not desired any more. Of a console, the ConfigMap goes first: the others are watched,
    /// and show that it has to be deleted.
    pub(super) async fn delete_leftovers(
        &self,
        leftovers: &Leftovers,
        report: &mut ApplyReport,
    ) -> Result<(), ReconcileError> {
        let background = DeleteParams::background;
        let Leftovers { disruption_budgets, service, service_account, deployment } = leftovers;
        let mut result = Ok(());
        for live in disruption_budgets {
            result = result.and(self.delete::<PodDisruptionBudget>(live, None, background(), report).await);
        }
        if !leftovers.has_console() {
            return result;
        }
        let name = names::child(self.cr, Role::Console.component());
        if let Some(live) = self.own_config_map(&name).await? {
            self.delete::<ConfigMap>(&live, None, background(), report).await?;
        }
        if let Some(live) = service {
            result = result.and(self.delete::<Service>(live, None, background(), report).await);
        }
        if let Some(live) = service_account {
            result = result.and(self.delete::<ServiceAccount>(live, None, background(), report).await);
        }
        if let Some(live) = deployment {
            result = result.and(self.delete::<Deployment>(live, None, background(), report).await);
        }
        result
    }

    /// The ConfigMap, if it belongs to this object.
    async fn own_config_map(&self, name: &str) -> Result<Option<ConfigMap>, ReconcileError> {
        let found = self.api::<ConfigMap>().get_opt(name).await.map_err(api_error::<ConfigMap>("get", name))?;
        Ok(found.filter(|found| names::is_owned(&found.metadata, self.cr)))
    }
}
