//! Scales Deployments and chooses the pods that go first. The field manager is the scaler.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use pulse_crd::PendingChange;
use pulse_crd::names::{self, SCALER};
use pulse_reconcile::done::ApplyReport;
use pulse_reconcile::error::ReconcileError;
use pulse_reconcile::replicas::ReplicaChange;
use serde_json::json;

use super::applier::Applier;
use super::object::api_error;

impl Applier<'_> {
    /// Scales the Deployments whose number of pods the spec sets.
    ///
    /// # Errors
    /// [`ReconcileError`] if a Deployment cannot be read or scaled; the others are scaled nevertheless.
    pub(super) async fn replicas(
        &self,
        changes: &[ReplicaChange],
        report: &mut ApplyReport,
    ) -> Result<(), ReconcileError> {
        let mut result = Ok(());
        for ReplicaChange { deployment: name, to, held, .. } in changes {
            if *held {
                report.held.push(name.clone());
                continue;
            }
            report.changes.push(scaling(name));
            if !self.dry_run {
                result = result.and(self.scale_if_needed(name, *to).await);
            }
        }
        result
    }

    /// Reads a Deployment from the API server, because the cache may be stale and scaling must not rely on it.
    ///
    /// # Errors
    /// [`ReconcileError::Refused`] if the Deployment cannot be read.
    pub(super) async fn live(&self, name: &str) -> Result<Option<Deployment>, ReconcileError> {
        let live = self.api::<Deployment>().get_opt(name).await.map_err(api_error::<Deployment>("get", name))?;
        Ok(live.filter(|live| names::is_owned(&live.metadata, self.cr)))
    }

    /// Sets the replicas of `live`. Returns false if the Deployment has changed since it was read: its controller
    /// changes it often, and each change triggers the next reconcile.
    ///
    /// # Errors
    /// [`ReconcileError::Refused`] for any other error.
    pub(super) async fn scale(&self, live: &Deployment, replicas: i32) -> Result<bool, ReconcileError> {
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
    /// [`ReconcileError::Refused`] if the Deployment cannot be read or scaled, or the error before during the back-off.
    pub(super) async fn scale_if_needed(&self, name: &str, replicas: i32) -> Result<(), ReconcileError> {
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
    /// [`ReconcileError::Refused`] if the pod cannot be patched.
    pub(super) async fn set_deletion_cost(&self, pod: &str, cost: Option<i32>) -> Result<(), ReconcileError> {
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

/// The change of a number of pods.
pub(super) fn scaling(deployment: &str) -> PendingChange {
    PendingChange { object: format!("Deployment {deployment}"), action: "scale".into(), restarts: false }
}
