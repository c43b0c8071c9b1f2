//! Tasks: the processing of one event or of one batch.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::Event;

/// The kind of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Processes one event.
    ProcessEvent,
    /// Processes the events of one batch.
    ProcessEventsBatch,
}

impl TaskKind {
    /// The name in the database and in HTTP responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProcessEvent => "process_event",
            Self::ProcessEventsBatch => "process_events_batch",
        }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A task that a worker has claimed, with its events.
#[derive(Debug, Clone)]
pub struct ClaimedTask {
    /// The task's id.
    pub id: Uuid,
    /// The events, in the order of the request, without those that were deleted.
    pub events: Vec<Event>,
    /// Size of the events for the limits of a worker, in bytes.
    pub bytes: usize,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Maximum number of attempts.
    pub max_attempts: u32,
    /// Grows with each claim. Only the holder of the newest token can settle the task.
    pub fencing_token: i64,
    /// When the task was accepted.
    pub created_at: DateTime<Utc>,
    /// The W3C trace context of the request that posted it.
    pub traceparent: Option<String>,
    /// The id of the request that posted it.
    pub request_id: Option<String>,
}

/// Why an attempt failed. The codes are stable: they are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The payload can never be processed: not retried.
    InvalidPayload,
    /// The processor returned an error.
    Error,
    /// The processor panicked.
    Panic,
    /// The attempt took longer than the task time-out.
    Timeout,
    /// PostgreSQL rejected the properties.
    Constraint,
    /// The worker died during the attempt.
    Crash,
}

impl FailureReason {
    /// Every reason, to create all metric labels at start.
    pub const ALL: [Self; 6] =
        [Self::InvalidPayload, Self::Error, Self::Panic, Self::Timeout, Self::Constraint, Self::Crash];

    /// The stable code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidPayload => "invalid_payload",
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Timeout => "timeout",
            Self::Constraint => "constraint",
            Self::Crash => "crash",
        }
    }

    /// Whether the attempt is retried while attempts are left.
    pub fn is_retryable(self) -> bool {
        self != Self::InvalidPayload
    }
}

/// How an attempt ended. The codes are stable: they are metric labels. The outcome of a task, in `task_history`, is that
/// of its last attempt or `cancelled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttemptOutcome {
    /// The results are stored.
    Completed,
    /// The events were deleted.
    Orphaned,
    /// The task runs again.
    Retried,
    /// The task was dead-lettered.
    Dead,
    /// The worker was draining and returned the task, which did not use up the attempt.
    Released,
}

impl AttemptOutcome {
    /// Every outcome, to create all metric labels at start.
    pub const ALL: [Self; 5] = [Self::Completed, Self::Orphaned, Self::Retried, Self::Dead, Self::Released];

    /// The stable code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Orphaned => "orphaned",
            Self::Retried => "retried",
            Self::Dead => "dead",
            Self::Released => "released",
        }
    }
}

/// A failed attempt, as it is stored with the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When it failed.
    pub at: DateTime<Utc>,
    /// The kind of failure.
    pub reason: FailureReason,
    /// The error message, truncated by the worker.
    pub error: String,
}

/// Returns the properties that the built-in processor stores: `{"original": payload, "timestamp": event time}`, as JSON
/// text.
///
/// The result depends on the event alone, so a repeated attempt returns the same text.
///
/// # Errors
/// [`FailureReason::InvalidPayload`] if the payload is not a JSON object.
pub fn processed_properties(event: &Event) -> Result<String, FailureReason> {
    if !event.payload.starts_with('{') {
        return Err(FailureReason::InvalidPayload);
    }
    let timestamp = event.event_timestamp.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    Ok(format!(r#"{{"original":{},"timestamp":"{timestamp}"}}"#, event.payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::TextFields;

    #[test]
    fn properties_contain_original_payload_and_event_time() {
        let time = DateTime::from_timestamp(1_766_053_800, 0).expect("valid");
        let mut event = Event {
            id: 7,
            task_id: Uuid::nil(),
            user_id: 1,
            fields: TextFields::default(),
            payload: r#"{"page":"/home"}"#.into(),
            event_timestamp: time,
            created_at: time,
        };
        let properties = processed_properties(&event).expect("an object");
        assert_eq!(properties, r#"{"original":{"page":"/home"},"timestamp":"2025-12-18T10:30:00Z"}"#);
        event.payload = "[1]".into();
        assert_eq!(processed_properties(&event), Err(FailureReason::InvalidPayload));
    }
}
