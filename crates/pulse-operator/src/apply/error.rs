//! What keeps an object from being applied.

use pulse_reconcile::unapplied::Unapplied;

use crate::client::api_message;

/// An error that kept an object from being applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// An object of that name exists and has another owner.
    #[error("{kind} {name} exists and has another owner: rename or delete it")]
    Conflict {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
    },
    /// An object of that name belongs to a deleted `PulseIngest` of the same name.
    #[error("{kind} {name} belongs to a deleted PulseIngest of this name: wait until it is garbage-collected")]
    PredecessorTerminating {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
    },
    /// The pod template of an object is not valid.
    #[error("{kind} {name} cannot be built: {message}: correct the pod template")]
    Invalid {
        /// Kind of the object.
        kind: &'static str,
        /// Name of the object.
        name: String,
        /// Path of the field, and what is wrong with it.
        message: String,
    },
    /// The API server rejected the request or did not answer.
    #[error("cannot {verb} {kind} {name}: {}", api_message(.source))]
    Api {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// Error of the client.
        source: Box<kube::Error>,
    },
    /// No request was made: the back-off of this object has not ended. Contains the reason for it.
    #[error("{}", .0.message())]
    BackingOff(Unapplied),
}

impl ApplyError {
    /// Returns the error for the status.
    pub(crate) fn unapplied(&self) -> Unapplied {
        match self {
            Self::Conflict { .. } => Unapplied::NameConflict(self.to_string()),
            Self::Invalid { .. } => Unapplied::InvalidPodTemplate(self.to_string()),
            Self::PredecessorTerminating { .. } | Self::Api { .. } => Unapplied::Error(self.to_string()),
            Self::BackingOff(unapplied) => unapplied.clone(),
        }
    }
}
