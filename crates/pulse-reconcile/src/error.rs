//! What keeps a reconcile from being complete, and what happens next because of it.

use std::time::Duration;

/// An error of a reconcile. Its text is a sentence for the status and for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "`object` is a kind and a name; `message` says what is wrong")]
pub enum ReconcileError {
    /// An object with the name of a child exists and has another owner. It does not resolve by retrying.
    #[error("{object} exists and has another owner: rename or delete it")]
    NameConflict { object: String },
    /// A child belongs to a deleted `PulseIngest` of the same name.
    #[error("{object} belongs to a deleted PulseIngest of this name: wait until it is garbage-collected")]
    PredecessorTerminating { object: String },
    /// A pod template has a field that Kubernetes does not have, or of another type. Only the user can correct it.
    #[error("{object} cannot be built: {message}: correct the pod template")]
    InvalidPodTemplate { object: String, message: String },
    /// The API server rejected a request about a child, or did not answer.
    #[error("cannot {verb} {object}: {message}")]
    Refused { verb: &'static str, object: String, message: String },
    /// Another client changes an object again and again.
    #[error("{0}")]
    Contested(String),
    /// The rollout of these objects waits for those of other instances.
    #[error("the rollout waits for those of other instances (--max-concurrent-rollouts of the operator): {0}")]
    Queued(String),
    /// The status cannot be written.
    #[error("cannot write the status: {0}")]
    StatusNotWritten(String),
    /// The object has changed since it was read. It may have been claimed by another operator.
    #[error("cannot claim the object, because it has changed: trying again")]
    ClaimConflict,
    /// The reconcile took too long and was aborted.
    #[error("timed out after {} s", .0.as_secs())]
    TimedOut(Duration),
    /// Another operator reconciles the object.
    #[error("operator {0} reconciles the object")]
    OtherOperator(String),
}

/// When something is tried again after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// The child is tried again after its back-off. Everything else is reconciled as usual.
    Child,
    /// As usual: a timer or an event of another part ends the wait.
    Usual,
    /// The reconcile is repeated after a back-off.
    Reconcile,
}

impl ReconcileError {
    /// When something is tried again.
    pub const fn requeue(&self) -> Requeue {
        match self {
            Self::NameConflict { .. }
            | Self::PredecessorTerminating { .. }
            | Self::InvalidPodTemplate { .. }
            | Self::Refused { .. } => Requeue::Child,
            Self::Contested(_) | Self::Queued(_) | Self::OtherOperator(_) => Requeue::Usual,
            Self::StatusNotWritten(_) | Self::ClaimConflict | Self::TimedOut(_) => Requeue::Reconcile,
        }
    }

    /// Whether only a person can help, so that the object is stalled.
    pub const fn needs_action(&self) -> bool {
        matches!(self, Self::NameConflict { .. } | Self::InvalidPodTemplate { .. })
    }

    /// Reason of the condition.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NameConflict { .. } => "NameConflict",
            Self::InvalidPodTemplate { .. } => "InvalidPodTemplate",
            Self::Contested(_) => "Contested",
            Self::Queued(_) => ROLLOUT_QUEUED,
            _ => "ReconcileFailed",
        }
    }
}

/// Reason of the conditions while a rollout waits for those of other instances.
pub const ROLLOUT_QUEUED: &str = "RolloutQueued";
