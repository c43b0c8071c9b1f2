//! Pause, resume, approve: one field each, and nothing that the person has not seen.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{Plugin, PluginError};
use crate::crd::{AutoscalingMode, AutoscalingPause, MigrationPolicy, MigrationState, PlanSummary, PulseIngest};

/// The field manager of what a person changes.
const EDITOR: &str = "kubectl-pulse";
/// The operator writes the status meanwhile: so often is looked again.
const TRIES: usize = 5;

/// What to pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Everything but the status.
    All,
    /// The number of workers.
    Scaling,
}

/// A plan that waits for its approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingPlan {
    /// Its hash.
    pub hash: String,
    /// The image that it is for.
    pub image: String,
    /// What would be done.
    pub summary: PlanSummary,
    /// Whether the object allows what is destructive.
    pub allow_destructive: bool,
}

impl Plugin {
    /// Pauses; returns what is said about it.
    ///
    /// # Errors
    /// [`PluginError`].
    pub async fn pause(&self, name: &str, what: Pause) -> Result<String, PluginError> {
        let object = self.object(name).await?;
        match what {
            Pause::All if object.spec.paused => Ok(format!("{name} is paused already")),
            Pause::All => {
                self.patch(name, json!({ "spec": { "paused": true } })).await?;
                Ok(format!("{name} is paused: nothing but its status is written until `kubectl pulse resume {name}`"))
            }
            Pause::Scaling => {
                let paused = scales(&object)?;
                if paused == AutoscalingPause::All {
                    return Ok(format!("the scaling of {name} is paused already"));
                }
                self.patch(name, scaling(AutoscalingPause::All)).await?;
                Ok(format!("the number of workers of {name} is held until `kubectl pulse resume {name}`"))
            }
        }
    }

    /// Ends every pause; returns what is said about it.
    ///
    /// # Errors
    /// [`PluginError`].
    pub async fn resume(&self, name: &str) -> Result<String, PluginError> {
        let object = self.object(name).await?;
        let held = object.spec.workers.autoscaling.as_ref().map(|scaling| scaling.paused);
        let held = held.filter(|paused| *paused != AutoscalingPause::None);
        let mut patch = json!({});
        let mut ended = Vec::new();
        if object.spec.paused {
            patch["spec"]["paused"] = json!(false);
            ended.push("paused".to_owned());
        }
        if let Some(held) = held {
            patch["spec"]["workers"] = scaling(AutoscalingPause::None)["spec"]["workers"].clone();
            ended.push(format!("workers.autoscaling.paused ({held:?})"));
        }
        if ended.is_empty() {
            return Ok(format!("{name} is not paused"));
        }
        self.patch(name, patch).await?;
        Ok(format!("{name} goes on: ended {}", ended.join(" and ")))
    }

    /// The plan that waits.
    ///
    /// # Errors
    /// [`PluginError::Refused`] if none does.
    pub async fn pending(&self, name: &str) -> Result<PendingPlan, PluginError> {
        pending(&self.object(name).await?)
    }

    /// Approves the plan of this hash, if it still is the one that waits.
    ///
    /// # Errors
    /// [`PluginError::Refused`] if another one waits, or none.
    pub async fn approve(&self, name: &str, hash: &str) -> Result<(), PluginError> {
        for _ in 0..TRIES {
            let object = self.object(name).await?;
            let waiting = pending(&object)?.hash;
            if waiting != hash {
                return Err(PluginError::Refused(format!(
                    "another plan waits: {waiting}; look at it with `kubectl pulse status {name}`"
                )));
            }
            let patch = json!({
                // What was looked at is what is approved.
                "metadata": { "resourceVersion": object.resource_version() },
                "spec": { "migrations": { "approvedPlan": hash } },
            });
            if self.patched(name, &patch).await? {
                return Ok(());
            }
        }
        Err(PluginError::Refused(format!("{name} changes all the time: try again")))
    }

    async fn patch(&self, name: &str, patch: Value) -> Result<(), PluginError> {
        self.patched(name, &patch).await.map(drop)
    }

    /// Whether it was done: not if the object has another version by now.
    async fn patched(&self, name: &str, patch: &Value) -> Result<bool, PluginError> {
        let params = PatchParams { field_manager: Some(EDITOR.into()), ..PatchParams::default() };
        match self.all::<PulseIngest>().patch(name, &params, &Patch::Merge(patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(self.told::<PulseIngest>("patch", &error)),
        }
    }
}

fn scaling(paused: AutoscalingPause) -> Value {
    json!({ "spec": { "workers": { "autoscaling": { "paused": paused } } } })
}

/// Which changes are held, where the operator decides.
fn scales(object: &PulseIngest) -> Result<AutoscalingPause, PluginError> {
    let name = object.name_any();
    match &object.spec.workers.autoscaling {
        Some(scaling) if scaling.mode == AutoscalingMode::Internal => Ok(scaling.paused),
        Some(_) => Err(PluginError::Refused(format!("somebody else scales {name} (mode External): pause it there"))),
        None => Err(PluginError::Refused(format!(
            "{name} has no workers.autoscaling: its number of workers is what workers.replicas says"
        ))),
    }
}

fn pending(object: &PulseIngest) -> Result<PendingPlan, PluginError> {
    let name = object.name_any();
    let refused = |why: String| Err(PluginError::Refused(why));
    let migrations = &object.spec.migrations;
    let status = object.status.clone().unwrap_or_default();
    if migrations.policy != MigrationPolicy::Plan {
        return refused(format!(
            "{name} has migrations.policy {:?}: only plans of policy Plan are approved",
            migrations.policy
        ));
    }
    let Some(found) = status.migrations.filter(|found| found.state == MigrationState::Planned) else {
        return refused(format!("no plan of {name} waits: see `kubectl pulse status {name}`"));
    };
    let (Some(hash), Some(summary)) = (found.plan_hash, found.plan) else {
        return refused(format!("no plan of {name} waits: see `kubectl pulse status {name}`"));
    };
    if migrations.approved_plan.as_ref() == Some(&hash) {
        return refused(format!("the plan of {name} is approved already: the operator carries it out"));
    }
    if object.metadata.generation != Some(status.observed_generation) {
        return refused(format!("the operator has not planned the newest spec of {name} yet: try again in a moment"));
    }
    let image = status.desired_revision.map(|revision| revision.image).unwrap_or_default();
    Ok(PendingPlan { hash, image, summary, allow_destructive: migrations.allow_destructive })
}
