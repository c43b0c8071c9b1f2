//! Events: as a client posts them, and as a processor receives them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A valid event: each field is within its limit and contains only values that PostgreSQL can store.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// Name of the event, 1 to 255 characters.
    pub event_name: String,
    /// Type of the event, 1 to 100 characters.
    pub event_type: String,
    /// Source of the event, at most 100 characters.
    pub source: Option<String>,
    /// Session of the client, at most 255 characters.
    pub session_id: Option<String>,
    /// JSON text of an object; `{}` if absent. The text is the one that was sent, after [`crate::repair`].
    pub payload: String,
    /// An IPv4 or IPv6 address, at most 45 characters.
    pub ip_address: Option<String>,
    /// User agent of the client.
    pub user_agent: Option<String>,
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
    /// Name of the event.
    pub event_name: String,
    /// Type of the event.
    pub event_type: String,
    /// Source of the event.
    pub source: Option<String>,
    /// Session of the client.
    pub session_id: Option<String>,
    /// JSON text of the payload, as PostgreSQL returns it. Its values are equal to the accepted ones; white space, key
    /// order, duplicate keys and the spelling of numbers may differ.
    pub payload: String,
    /// Address of the client, as it was posted.
    pub ip_address: Option<String>,
    /// User agent of the client.
    pub user_agent: Option<String>,
    /// When the event happened.
    pub event_timestamp: DateTime<Utc>,
    /// When the event was accepted.
    pub created_at: DateTime<Utc>,
}

/// Limits of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size, in bytes of the JSON text.
    pub event_bytes: usize,
    /// Maximum nesting depth, including the event object.
    pub depth: usize,
    /// Maximum length of `user_agent`, in characters.
    pub user_agent_chars: usize,
}
