//! The outcome of a claimed task.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pulse_core::Attempt;
use uuid::Uuid;

/// The outcome of one claimed task.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Id of the task.
    pub task_id: Uuid,
    /// Fencing token of the claim.
    pub fencing_token: i64,
    /// `created_at` of the task and its events, which finds their partition.
    pub created_at: DateTime<Utc>,
    /// Ids of the events that the claim returned.
    pub event_ids: Vec<i64>,
    /// Time for which the attempt ran; `None` if it did not begin, or if its worker died.
    pub ran: Option<Duration>,
    /// How the attempt ended.
    pub outcome: Outcome,
}

/// How an attempt ends.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Completed, with the effects on all events of the task.
    Completed(Vec<Effect>),
    /// The events were deleted.
    Orphaned,
    /// Some events of a batch have no result: the batch completes, and each of these events gets a task.
    Split {
        /// The effects on the other events.
        effects: Vec<Effect>,
        /// The new tasks.
        children: Vec<Child>,
    },
    /// Failed; the task runs again after `delay`.
    Retry {
        /// Time until the next attempt, by PostgreSQL's clock.
        delay: Duration,
        /// The failed attempt.
        attempt: Attempt,
    },
    /// Failed for the last time; the task moves to `dead_tasks`.
    DeadLetter(Attempt),
    /// Returned without an outcome, which uses no attempt: the task runs again after the delay.
    Release(Duration),
}

/// The effect of a task on one event.
#[derive(Debug, Clone)]
pub struct Effect {
    /// Id of the event.
    pub event_id: i64,
    /// Properties of the event, as JSON text.
    pub properties: String,
}

/// A new task for one event of a batch.
#[derive(Debug, Clone)]
pub struct Child {
    /// Id of the task, a UUIDv7.
    pub id: Uuid,
    /// Id of the event.
    pub event_id: i64,
    /// Size of the event for the limits of a claim, in bytes.
    pub bytes: usize,
    /// What happened to the event.
    pub state: ChildState,
}

/// What happened to an event of a batch that has no result.
#[derive(Debug, Clone)]
pub enum ChildState {
    /// Its processing did not begin: no attempt is used.
    Pending,
    /// A worker died while it had the batch, so the event may be the cause: no attempt is used.
    Crashed,
    /// Failed; it runs again after `delay`.
    Retry {
        /// Time until the next attempt.
        delay: Duration,
        /// The failed attempt.
        attempt: Attempt,
    },
    /// Failed for the last time.
    Dead(Attempt),
}

impl Settlement {
    pub(crate) fn attempt_seconds(&self) -> Option<f64> {
        self.ran.map(|ran| ran.as_secs_f64())
    }

    /// Whether settling updates the events. Only then can a lock on an event prevent it.
    pub(crate) fn updates_events(&self) -> bool {
        match self.outcome {
            Outcome::Completed(_) | Outcome::Split { .. } | Outcome::DeadLetter(_) => true,
            Outcome::Orphaned | Outcome::Retry { .. } | Outcome::Release(_) => false,
        }
    }
}
