//! Scales Deployments and chooses the pods that go first. The field manager is the scaler.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use pulse_crd::names::{self, SCALER};
use serde_json::json;

use super::object::api_error;
use super::{Applier, ApplyError};

impl Applier<'_> {
    /// Reads a Deployment from the API server, because the cache may be stale and scaling must not rely on it.
    ///
    /// # Errors
    /// [`ApplyError::Api`] if the Deployment cannot be read.
    pub(crate) async fn live(&self, name: &str) -> Result<Option<Deployment>, ApplyError> {
        let live = self.api::<Deployment>().get_opt(name).await.map_err(api_error::<Deployment>("get", name))?;
        Ok(live.filter(|live| names::is_owned(&live.metadata, self.cr)))
    }

    /// Sets the replicas of `live`. Returns false if the Deployment has changed since it was read: its controller
    /// changes it often, and each change triggers the next reconcile.
    ///
    /// # Errors
    /// [`ApplyError::Api`] for any other error.
    pub(crate) async fn scale(&self, live: &Deployment, replicas: i32) -> Result<bool, ApplyError> {
        let name = live.name_any();
        let patch = json!({
            "metadata": { "resourceVersion": live.resource_version() },
            "spec": { "replicas": replicas },
        });
        let params = PatchParams { field_manager: Some(SCALER.into()), ..PatchParams::default() };
        match self.api::<Deployment>().patch_scale(&name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
            Err(error) => Err(api_error::<Deployment>("scale", &name)(error)),
        }
    }

    /// Scales a Deployment unless it has the replicas already.
    ///
    /// # Errors
    /// [`ApplyError::Api`] if the Deployment cannot be read or scaled, or [`ApplyError::BackingOff`] during the back-off.
    pub(crate) async fn scale_if_needed(&self, name: &str, replicas: i32) -> Result<(), ApplyError> {
        let attempt = async {
            if let Some(live) = self.live(name).await?
                && live.spec.as_ref().and_then(|spec| spec.replicas) != Some(replicas)
            {
                self.scale(&live, replicas).await?;
            }
            Ok(())
        };
        self.guarded(format!("Scale {name}"), &replicas.to_string(), attempt).await
    }

    /// Sets the pod deletion cost, which decides the pod that a ReplicaSet removes first. A missing pod is not an
    /// error.
    ///
    /// # Errors
    /// [`ApplyError::Api`] if the pod cannot be patched.
    pub(crate) async fn set_deletion_cost(&self, pod: &str, cost: Option<i32>) -> Result<(), ApplyError> {
        let cost = cost.map(|cost| cost.to_string());
        let patch = json!({ "metadata": { "annotations": { (names::DELETION_COST): cost } } });
        let params = PatchParams { field_manager: Some(SCALER.into()), ..PatchParams::default() };
        match self.api::<Pod>().patch(pod, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(api_error::<Pod>("patch", pod)(error)),
        }
    }
}
