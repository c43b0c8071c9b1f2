//! Pause, resume and approve: each patches one field.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use pulse_crd::{AutoscalingMode, AutoscalingPause, MigrationPolicy, MigrationState, PlanSummary, PulseIngest};
use serde_json::{Value, json};

use crate::connection::{Plugin, PluginError};

/// Field manager of the plugin's patches.
const FIELD_MANAGER: &str = "kubectl-pulse";
/// Attempts of an approval: the operator may write the status between the read and the patch.
const APPROVE_ATTEMPTS: usize = 5;

/// Scope of a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Everything except updates of the status.
    All,
    /// Scaling of the workers only.
    Scaling,
}

/// A migration plan that waits for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingPlan {
    /// Hash of the plan.
    pub hash: String,
    /// Image that the plan is for.
    pub image: String,
    /// Pending migrations of the plan.
    pub summary: PlanSummary,
    /// Whether the spec allows destructive migrations.
    pub allow_destructive: bool,
}

impl Plugin {
    /// Pauses an object; returns the message for the user.
    ///
    /// # Errors
    /// [`PluginError::Refused`] if the operator does not scale the object; otherwise the error of the API server.
    pub async fn pause(&self, name: &str, what: Pause) -> Result<String, PluginError> {
        let object = self.object(name).await?;
        match what {
            Pause::All if object.spec.paused => Ok(format!("{name} is already paused")),
            Pause::All => {
                self.patch(name, json!({ "spec": { "paused": true } })).await?;
                Ok(format!("{name} is paused: only its status is updated until `kubectl pulse resume {name}`"))
            }
            Pause::Scaling => {
                let paused = autoscaling_pause(&object)?;
                if paused == AutoscalingPause::All {
                    return Ok(format!("scaling of {name} is already paused"));
                }
                self.patch(name, scaling_patch(AutoscalingPause::All)).await?;
                Ok(format!(
                    "scaling of {name} is paused: its number of workers stays until `kubectl pulse resume {name}`"
                ))
            }
        }
    }

    /// Ends every pause of an object; returns the message for the user.
    ///
    /// # Errors
    /// [`PluginError`] if the object cannot be read or patched.
    pub async fn resume(&self, name: &str) -> Result<String, PluginError> {
        let object = self.object(name).await?;
        let scaling_pause = object.spec.workers.autoscaling.as_ref().map(|scaling| scaling.paused);
        let scaling_pause = scaling_pause.filter(|paused| *paused != AutoscalingPause::None);
        let mut patch = json!({});
        let mut cleared = Vec::new();
        if object.spec.paused {
            patch["spec"]["paused"] = json!(false);
            cleared.push("paused".to_owned());
        }
        if let Some(scaling_pause) = scaling_pause {
            patch["spec"]["workers"] = scaling_patch(AutoscalingPause::None)["spec"]["workers"].clone();
            cleared.push(format!("workers.autoscaling.paused (was {scaling_pause:?})"));
        }
        if cleared.is_empty() {
            return Ok(format!("{name} is not paused"));
        }
        self.patch(name, patch).await?;
        Ok(format!("{name} resumed: cleared {}", cleared.join(" and ")))
    }

    /// The plan that waits for approval.
    ///
    /// # Errors
    /// [`PluginError::Refused`] if no plan waits.
    pub async fn pending(&self, name: &str) -> Result<PendingPlan, PluginError> {
        pending_plan(&self.object(name).await?)
    }

    /// Approves the plan with this hash if it is the one that waits.
    ///
    /// # Errors
    /// [`PluginError::Refused`] if another plan waits, or none.
    pub async fn approve(&self, name: &str, hash: &str) -> Result<(), PluginError> {
        for _ in 0..APPROVE_ATTEMPTS {
            let object = self.object(name).await?;
            let waiting = pending_plan(&object)?.hash;
            if waiting != hash {
                return Err(PluginError::Refused(format!(
                    "another plan waits for approval: {waiting}; review it with `kubectl pulse status {name}`"
                )));
            }
            let patch = json!({
                // The patch fails if the object has changed since it was read.
                "metadata": { "resourceVersion": object.resource_version() },
                "spec": { "migrations": { "approvedPlan": hash } },
            });
            if self.try_patch(name, &patch).await? {
                return Ok(());
            }
        }
        Err(PluginError::Refused(format!("{name} changed during each attempt: try again")))
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<(), PluginError> {
        self.try_patch(name, &patch).await.map(drop)
    }

    /// Returns whether the patch was applied; `false` if the object has another resource version by now.
    async fn try_patch(&self, name: &str, patch: &Value) -> Result<bool, PluginError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        match self.all::<PulseIngest>().patch(name, &params, &Patch::Merge(patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(self.api_error::<PulseIngest>("patch", &error)),
        }
    }
}

fn scaling_patch(paused: AutoscalingPause) -> Value {
    json!({ "spec": { "workers": { "autoscaling": { "paused": paused } } } })
}

/// The current pause of the autoscaling, if the operator scales the object.
fn autoscaling_pause(object: &PulseIngest) -> Result<AutoscalingPause, PluginError> {
    let name = object.name_any();
    match &object.spec.workers.autoscaling {
        Some(scaling) if scaling.mode == AutoscalingMode::Internal => Ok(scaling.paused),
        Some(_) => Err(PluginError::Refused(format!("another scaler controls {name} (mode External): pause it there"))),
        None => Err(PluginError::Refused(format!(
            "{name} has no workers.autoscaling: workers.replicas sets its number of workers"
        ))),
    }
}

fn pending_plan(object: &PulseIngest) -> Result<PendingPlan, PluginError> {
    let name = object.name_any();
    let refused = |why: String| Err(PluginError::Refused(why));
    let migrations = &object.spec.migrations;
    let status = object.status.clone().unwrap_or_default();
    if migrations.policy != MigrationPolicy::Plan {
        return refused(format!(
            "{name} has migrations.policy {:?}: only policy Plan has plans to approve",
            migrations.policy
        ));
    }
    let Some(found) = status.migrations.filter(|found| found.state == MigrationState::Planned) else {
        return refused(format!("no plan of {name} waits for approval: see `kubectl pulse status {name}`"));
    };
    let (Some(hash), Some(summary)) = (found.plan_hash, found.plan) else {
        return refused(format!("no plan of {name} waits for approval: see `kubectl pulse status {name}`"));
    };
    if migrations.approved_plan.as_ref() == Some(&hash) {
        return refused(format!("the plan of {name} is already approved: the operator runs it"));
    }
    if object.metadata.generation != Some(status.observed_generation) {
        return refused(format!("the operator has not planned the newest spec of {name} yet: try again in a moment"));
    }
    let image = status.desired_revision.map(|revision| revision.image).unwrap_or_default();
    Ok(PendingPlan { hash, image, summary, allow_destructive: migrations.allow_destructive })
}
