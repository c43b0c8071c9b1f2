//! What kept a reconcile from applying everything.

/// What kept the reconcile from applying everything, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unapplied {
    /// An object with the name of a child exists and has another owner. It does not resolve by retrying.
    NameConflict(String),
    /// A pod template has a field that Kubernetes does not have, or of another type. Only the user can correct it.
    InvalidPodTemplate(String),
    /// Another client changes an object again and again.
    Contested(String),
    /// A rollout waits for those of other instances.
    Queued(String),
    /// Any other error. The reconcile is retried.
    Error(String),
}

impl Unapplied {
    /// Returns the sentence.
    pub fn message(&self) -> &str {
        let (Self::NameConflict(message)
        | Self::InvalidPodTemplate(message)
        | Self::Contested(message)
        | Self::Queued(message)
        | Self::Error(message)) = self;
        message
    }

    /// Reason of the condition.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NameConflict(_) => "NameConflict",
            Self::InvalidPodTemplate(_) => "InvalidPodTemplate",
            Self::Contested(_) => "Contested",
            Self::Queued(_) => ROLLOUT_QUEUED,
            Self::Error(_) => "ReconcileFailed",
        }
    }
}

/// Reason of the conditions while a rollout waits for those of other instances.
pub const ROLLOUT_QUEUED: &str = "RolloutQueued";
