//! Events: as a client posts them, and as a processor receives them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::fields::TextFields;

/// A valid event: each field is within its limit and contains only values that PostgreSQL can store.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// The text fields, each within its limit.
    pub fields: TextFields,
    /// JSON text of an object; `{}` if absent. The text is the one that was sent, after [`crate::repair`].
    pub payload: String,
    /// Bytes of the text that PostgreSQL returns for the payload and the text fields. Larger by what [`crate::check_text`]
    /// counts too much.
    pub stored_bytes: usize,
    /// When the event happened, by the client's clock; the time of acceptance if absent.
    pub event_timestamp: Option<DateTime<Utc>>,
}

/// A stored event, as a processor receives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The event's id.
    pub id: i64,
    /// Id of the task that processes the event.
    pub task_id: Uuid,
    /// The user who posted the event.
    pub user_id: i64,
    /// Name, type and the other text fields.
    pub fields: TextFields,
    /// JSON text of the payload, as PostgreSQL returns it. Its values are equal to the accepted ones; white space, key
    /// order, duplicate keys and the spelling of numbers may differ.
    pub payload: String,
    /// When the event happened.
    pub event_timestamp: DateTime<Utc>,
    /// When the event was accepted.
    pub created_at: DateTime<Utc>,
}

/// What an event takes in a worker in addition to its texts, in bytes.
const OVERHEAD_BYTES: usize = 1024;

impl NewEvent {
    /// Size of the event for the limits of a worker, in bytes.
    pub fn bytes(&self) -> usize {
        self.stored_bytes + OVERHEAD_BYTES
    }
}

impl Event {
    /// Size of the event for the limits of a worker, in bytes.
    pub fn bytes(&self) -> usize {
        self.payload.len() + OVERHEAD_BYTES
    }
}

/// Limits of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size, in bytes of the JSON text.
    pub event_bytes: usize,
    /// Maximum nesting depth of the payload, including the event object.
    pub depth: usize,
}

impl Limits {
    /// Maximum of [`NewEvent::stored_bytes`]. Twice the limit of the text as sent: the spaces that `jsonb` adds need at
    /// most half of that again, so only numbers with an exponent can exceed it.
    pub fn stored_bytes(&self) -> usize {
        self.event_bytes.saturating_mul(2)
    }
}
