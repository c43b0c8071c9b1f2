//! Columns of many outcomes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pulse_core::Attempt;
use sqlx::types::Json;
use uuid::Uuid;

use crate::settlement::{Effect, Settlement};

/// Columns of effects on events.
#[derive(Default)]
pub(crate) struct EffectColumns<'a> {
    pub(crate) task_id: Vec<Uuid>,
    pub(crate) event_id: Vec<i64>,
    pub(crate) created_at: Vec<DateTime<Utc>>,
    pub(crate) properties: Vec<&'a str>,
}

impl<'a> EffectColumns<'a> {
    pub(crate) fn push(&mut self, settlement: &Settlement, effects: &'a [Effect]) {
        for Effect { event_id, properties } in effects {
            self.task_id.push(settlement.task_id);
            self.event_id.push(*event_id);
            self.created_at.push(settlement.created_at);
            self.properties.push(properties);
        }
    }
}

/// Columns of completed and orphaned tasks, and of the effects on their events.
#[derive(Default)]
pub(crate) struct CompletedColumns<'a> {
    pub(crate) task_id: Vec<Uuid>,
    pub(crate) fencing_token: Vec<i64>,
    pub(crate) orphaned: Vec<Uuid>,
    /// Durations of the attempts that ran.
    pub(crate) attempt_seconds: Vec<f64>,
    pub(crate) effects: EffectColumns<'a>,
}

impl<'a> CompletedColumns<'a> {
    pub(crate) fn push(&mut self, settlement: &Settlement, effects: &'a [Effect]) {
        self.task_id.push(settlement.task_id);
        self.fencing_token.push(settlement.fencing_token);
        self.attempt_seconds.extend(settlement.attempt_seconds());
        self.effects.push(settlement, effects);
    }
}

/// Columns of tasks whose attempt had no effect.
#[derive(Default)]
pub(crate) struct AttemptColumns<'a> {
    pub(crate) task_id: Vec<Uuid>,
    pub(crate) fencing_token: Vec<i64>,
    pub(crate) delay: Vec<f64>,
    /// Durations of the attempts that ran.
    pub(crate) attempt_seconds: Vec<f64>,
    pub(crate) attempt: Vec<&'a Attempt>,
}

impl<'a> AttemptColumns<'a> {
    pub(crate) fn push(&mut self, settlement: &Settlement, delay: Duration, attempt: Option<&'a Attempt>) {
        self.task_id.push(settlement.task_id);
        self.fencing_token.push(settlement.fencing_token);
        self.delay.push(delay.as_secs_f64());
        self.attempt_seconds.extend(settlement.attempt_seconds());
        self.attempt.extend(attempt);
    }

    pub(crate) fn attempts(&self) -> Vec<Json<&'a Attempt>> {
        self.attempt.iter().map(|attempt| Json(*attempt)).collect()
    }
}
