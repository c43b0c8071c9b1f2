//! The work owed for one event or one batch, and what may become of it.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event::Event;

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// One event.
    ProcessEvent,
    /// All events of one batch, or none.
    ProcessEventsBatch,
}

impl TaskKind {
    /// The name in the database and in answers.
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

/// A task under lease, with its events.
#[derive(Debug, Clone)]
pub struct ClaimedTask {
    /// The task's id.
    pub id: Uuid,
    /// How many events it was accepted with; fewer in `events` means that they are gone.
    pub event_count: usize,
    /// Its events, in the order they were posted.
    pub events: Vec<Event>,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// How many attempts it may take.
    pub max_attempts: u32,
    /// The fence: only the holder of the newest one can settle.
    pub fencing_token: i64,
    /// The lease before ended by itself, and nobody noticed until now: that worker went away in the middle.
    pub crashed: bool,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// The W3C trace context of the request that posted it.
    pub traceparent: Option<String>,
    /// The id of the request that posted it.
    pub request_id: Option<String>,
}

/// Why an attempt failed. The codes are metric labels and stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The payload cannot be processed, now or later: not retried.
    InvalidPayload,
    /// Processing said that it failed.
    Error,
    /// Processing panicked.
    Panic,
    /// Processing took longer than the time-out.
    Timeout,
    /// PostgreSQL refused the effects.
    Constraint,
    /// The worker went away in the middle.
    Crash,
}

impl FailureReason {
    /// Every reason, for catalogues of labels.
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

    /// Whether another attempt can help.
    pub fn is_retryable(self) -> bool {
        self != Self::InvalidPayload
    }
}

/// One failed attempt, as it is kept with the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When it failed.
    pub at: DateTime<Utc>,
    /// Why.
    pub reason: FailureReason,
    /// What was said, cut to a safe length.
    pub error: String,
}

/// The built-in normalisation: `{original, timestamp}`, as the replaced system stores it, as JSON text.
///
/// It depends on the event alone, so that a second run gives the same.
///
/// # Errors
/// [`FailureReason::InvalidPayload`] if the payload is not an object.
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

    #[test]
    fn properties_hold_the_original_and_the_events_time() {
        let time = DateTime::from_timestamp(1_766_053_800, 0).expect("valid");
        let mut event = Event {
            id: 7,
            user_id: 1,
            event_name: "a".into(),
            event_type: "b".into(),
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
