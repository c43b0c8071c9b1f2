//! What is accepted, and the answers to it.

use pulse_core::{NewEvent, TaskKind};
use uuid::Uuid;

use crate::error::StoreError;

/// A task to accept, with its events.
#[derive(Debug)]
pub struct NewTask {
    /// A UUIDv7.
    pub id: Uuid,
    /// Owner of the events.
    pub user_id: i64,
    /// Whether the client posted one event or a batch.
    pub kind: TaskKind,
    /// In the order of the request. Must not be empty.
    pub events: Vec<NewEvent>,
    /// Maximum number of attempts.
    pub max_attempts: i32,
    /// The W3C trace context of the request.
    pub traceparent: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// The client's Idempotency-Key.
    pub key: Option<NewKey>,
}

impl NewTask {
    /// Size of the task's events for the limits of a worker, in bytes.
    pub fn bytes(&self) -> u64 {
        self.events.iter().map(NewEvent::bytes).sum::<usize>() as u64
    }
}

/// A key that a client sent, with the answer to store.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// Route of the request.
    pub route: &'static str,
    /// The key, 1 to 255 visible ASCII characters.
    pub key: String,
    /// SHA-256 of the body and of the `Prefer: handling` that applies.
    pub fingerprint: [u8; 32],
    /// Parts of the answer to repeat, besides the ids.
    pub replay: serde_json::Value,
}

/// A key that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyConflict {
    /// The key was used with another body.
    #[error("the Idempotency-Key was used with another body")]
    OtherBody,
    /// The first request with this key is still running.
    #[error("the first request with this Idempotency-Key is still running")]
    InProgress,
}

/// Why nothing can be accepted for a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OwnerProblem {
    /// The user was deleted.
    #[error("the user was deleted")]
    Deleted,
    /// The user is disabled.
    #[error("the user is disabled")]
    Disabled,
    /// Another transaction has locked the user, for example to delete it.
    #[error("the user is locked by another transaction")]
    Locked,
}

/// A committed request.
#[derive(Debug, Clone, PartialEq)]
pub enum Acceptance {
    /// Committed by this request.
    Accepted {
        /// In the order of the request.
        event_ids: Vec<i64>,
    },
    /// Committed by an earlier request with the same key and body.
    Replayed {
        /// The earlier task.
        task_id: Uuid,
        /// In the order of the request.
        event_ids: Vec<i64>,
        /// The rest of the earlier answer.
        replay: serde_json::Value,
    },
}

/// A request that was not committed.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// See [`KeyConflict`].
    #[error(transparent)]
    Key(#[from] KeyConflict),
    /// See [`OwnerProblem`]. Nothing was committed.
    #[error(transparent)]
    Owner(#[from] OwnerProblem),
    /// The queue is full: nothing was committed.
    #[error("too many requests are waiting for PostgreSQL")]
    Overloaded,
    /// The commit panicked, or the process shuts down: the outcome is unknown.
    #[error("the commit was interrupted: its outcome is unknown")]
    Interrupted,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}
