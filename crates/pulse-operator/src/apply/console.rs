//! The ConfigMap with the decisions for the console, and the objects of a console that was switched off.
//!
//! ConfigMaps are not watched, because a permission to watch them would show those of others. So the ConfigMap is read
//! before it is changed.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use kube::ResourceExt;
use kube::api::DeleteParams;
use pulse_crd::names::{self, APPLIED, Role};
use pulse_reconcile::leftovers::Leftovers;

use super::object::{Rendered, api_error, key};
use super::{Applier, ApplyError, ApplyReport};

impl Applier<'_> {
    /// Creates or changes the ConfigMap with the decisions, unless it is up to date.
    ///
    /// # Errors
    /// [`ApplyError`] if it cannot be read or written, or has another owner.
    pub(crate) async fn write_decisions(&self, mut desired: ConfigMap) -> Result<(), ApplyError> {
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

    /// Deletes the objects of a console that was switched off. The ConfigMap goes first: the others are watched, and
    /// show that it has to be deleted.
    pub(super) async fn delete_leftovers(
        &self,
        leftovers: &Leftovers,
        report: &mut ApplyReport,
    ) -> Result<(), ApplyError> {
        if leftovers.is_empty() {
            return Ok(());
        }
        let name = names::child(self.cr, Role::Console.component());
        let background = DeleteParams::background;
        if let Some(live) = self.own_config_map(&name).await? {
            self.delete::<ConfigMap>(&live, None, background(), report).await?;
        }
        let Leftovers { service, service_account, deployment } = leftovers;
        let mut result = Ok(());
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
    async fn own_config_map(&self, name: &str) -> Result<Option<ConfigMap>, ApplyError> {
        let found = self.api::<ConfigMap>().get_opt(name).await.map_err(api_error::<ConfigMap>("get", name))?;
        Ok(found.filter(|found| names::is_owned(&found.metadata, self.cr)))
    }
}
