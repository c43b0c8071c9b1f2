//! What became of a decision.

use k8s_openapi::api::apps::v1::Deployment;
use pulse_crd::PendingChange;
use pulse_crd::names::Role;

use crate::apply_memory::ApplyMemory;
use crate::error::ReconcileError;

/// What was applied of a decision.
#[derive(Default)]
pub struct Done {
    /// What was changed.
    pub report: ApplyReport,
    /// What kept it from being applied completely.
    pub problem: Option<ReconcileError>,
    /// The number of workers before and after it was changed.
    pub scaled: Option<(u32, u32)>,
    /// What was applied, for the next reconcile.
    pub memory: ApplyMemory,
}

/// Result of applying the objects.
#[derive(Debug, Default)]
pub struct ApplyReport {
    /// Objects that were created, changed or deleted, or would have been with `dry_run`.
    pub changes: Vec<PendingChange>,
    /// Objects that others had changed and that were changed back.
    pub drifted: Vec<String>,
    /// Deployments as the API server returned them. The observed ones do not show a rollout that has just begun.
    pub deployments: Vec<(Role, Deployment)>,
    /// Changes that replace pods, and wait for the rollouts of other instances.
    pub queued: Vec<String>,
    /// Names of Deployments whose change has to wait, to stay within the budget of connections.
    pub held: Vec<String>,
}
