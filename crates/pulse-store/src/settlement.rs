//! The outcome of a claimed task, and the columns of many outcomes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pulse_core::Attempt;
use sqlx::types::Json;
use uuid::Uuid;

/// The outcome of one claimed task.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Id of the task.
    pub task_id: Uuid,
    /// Fencing token of the claim.
    pub fencing_token: i64,
    /// How the attempt ended.
    pub outcome: Outcome,
}

/// How an attempt ends.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Completed, with the effects on all events of the task.
    Completed(Vec<Effect>),
    /// The events were deleted with their user.
    Orphaned,
    /// Failed; the task runs again after `delay`.
    Retry {
        /// Time until the next attempt, by PostgreSQL's clock.
        delay: Duration,
        /// The failed attempt.
        attempt: Attempt,
    },
    /// Failed for the last time; the task moves to `dead_tasks`.
    DeadLetter(Attempt),
    /// Released by a draining worker. The attempt does not count.
    Release,
}

/// The effect of a task on one event.
#[derive(Debug, Clone)]
pub struct Effect {
    /// Id of the event.
    pub event_id: i64,
    /// `created_at` of the event, which finds its partition.
    pub created_at: DateTime<Utc>,
    /// Properties of the event, as JSON text.
    pub properties: String,
}

/// Columns of completed and orphaned tasks, and of the effects on their events.
#[derive(Default)]
pub(crate) struct CompletedColumns<'a> {
    pub(crate) task_id: Vec<Uuid>,
    pub(crate) fencing_token: Vec<i64>,
    pub(crate) orphaned: Vec<Uuid>,
    pub(crate) effect_task_id: Vec<Uuid>,
    pub(crate) event_id: Vec<i64>,
    pub(crate) created_at: Vec<DateTime<Utc>>,
    pub(crate) properties: Vec<&'a str>,
}

impl<'a> CompletedColumns<'a> {
    pub(crate) fn push(&mut self, settlement: &Settlement, effects: &'a [Effect]) {
        self.task_id.push(settlement.task_id);
        self.fencing_token.push(settlement.fencing_token);
        for Effect { event_id, created_at, properties } in effects {
            self.effect_task_id.push(settlement.task_id);
            self.event_id.push(*event_id);
            self.created_at.push(*created_at);
            self.properties.push(properties);
        }
    }
}

/// Columns of tasks whose attempt had no effect.
#[derive(Default)]
pub(crate) struct AttemptColumns<'a> {
    pub(crate) task_id: Vec<Uuid>,
    pub(crate) fencing_token: Vec<i64>,
    pub(crate) delay: Vec<f64>,
    pub(crate) attempt: Vec<&'a Attempt>,
}

impl<'a> AttemptColumns<'a> {
    pub(crate) fn push(&mut self, settlement: &Settlement, delay: Duration, attempt: Option<&'a Attempt>) {
        self.task_id.push(settlement.task_id);
        self.fencing_token.push(settlement.fencing_token);
        self.delay.push(delay.as_secs_f64());
        self.attempt.extend(attempt);
    }

    pub(crate) fn attempts(&self) -> Vec<Json<&'a Attempt>> {
        self.attempt.iter().map(|attempt| Json(*attempt)).collect()
    }
}
