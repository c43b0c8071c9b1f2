//! Metrics and log lines of settled attempts.

use pulse_core::AttemptOutcome;
use pulse_store::{Child, ChildState, Outcome};

use crate::in_flight::EndedAttempt;
use crate::metrics::WorkerMetrics;

/// Counts a settled attempt, and logs a failed one.
pub(crate) fn record_settled(metrics: &WorkerMetrics, EndedAttempt { task, settlement, .. }: &EndedAttempt) {
    let task_id = task.id;
    match &settlement.outcome {
        Outcome::Completed(_) => {
            metrics.count_settled(AttemptOutcome::Completed);
            let age = (chrono::Utc::now() - task.created_at).as_seconds_f64().max(0.0);
            metrics.event_age_seconds.observe(age);
        }
        Outcome::Split { children, .. } => {
            metrics.count_settled(AttemptOutcome::Completed);
            tracing::warn!(%task_id, events = children.len(), "events of the batch have no result: each gets a task");
            for child in children {
                record_child(metrics, child);
            }
        }
        Outcome::Orphaned => metrics.count_settled(AttemptOutcome::Orphaned),
        Outcome::Release(_) => metrics.count_settled(AttemptOutcome::Released),
        Outcome::Retry { delay, attempt } => {
            metrics.count_settled(AttemptOutcome::Retried);
            metrics.count_retry(attempt.reason);
            let (reason, error) = (attempt.reason.as_str(), &attempt.error);
            tracing::warn!(
                %task_id,
                attempt = attempt.attempt,
                reason,
                error,
                ?delay,
                "attempt failed: the task is retried"
            );
        }
        Outcome::DeadLetter(attempt) => {
            metrics.count_settled(AttemptOutcome::Dead);
            let (reason, error) = (attempt.reason.as_str(), &attempt.error);
            tracing::error!(
                %task_id,
                attempt = attempt.attempt,
                reason,
                error,
                "task dead-lettered: see `pulse tasks list`, then retry or cancel it"
            );
        }
    }
}

fn record_child(metrics: &WorkerMetrics, Child { id, event_id, state, .. }: &Child) {
    match state {
        ChildState::Pending | ChildState::Crashed => {}
        ChildState::Retry { delay, attempt } => {
            metrics.count_retry(attempt.reason);
            let (reason, error) = (attempt.reason.as_str(), &attempt.error);
            tracing::warn!(task_id = %id, event_id, reason, error, ?delay, "event of a batch failed: it is retried");
        }
        ChildState::Dead(attempt) => {
            metrics.count_settled(AttemptOutcome::Dead);
            let (reason, error) = (attempt.reason.as_str(), &attempt.error);
            tracing::error!(task_id = %id, event_id, reason, error, "event of a batch dead-lettered: see `pulse tasks list`");
        }
    }
}
