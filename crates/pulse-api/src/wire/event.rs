//! The JSON of posted and stored events.

use chrono::{DateTime, Utc};
use pulse_store::{StoredEvent, UnprocessedEvents};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use uuid::Uuid;

/// An event to post. Unknown fields are ignored and reported in `warnings`; `Prefer: handling=strict` rejects them.
/// `timestamp` is an alias of `event_timestamp`.
#[derive(ToSchema)]
#[schema(as = Event, examples(json!({
    "event_name": "page_view",
    "event_type": "engagement",
    "source": "web",
    "session_id": "sess_123",
    "payload": {"page": "/dashboard", "duration": 45, "scroll_depth": 75},
    "ip_address": "192.168.1.1",
    "user_agent": "Mozilla/5.0",
})))]
#[expect(dead_code, reason = "describes what pulse-core parses")]
pub(crate) struct EventDocument {
    /// Name of the event.
    #[schema(min_length = 1, max_length = 255)]
    event_name: String,
    /// Type of the event.
    #[schema(min_length = 1, max_length = 100)]
    event_type: String,
    /// Source of the event.
    #[schema(max_length = 100)]
    source: Option<String>,
    /// Session of the client.
    #[schema(max_length = 255)]
    session_id: Option<String>,
    #[schema(schema_with = payload)]
    payload: Option<Value>,
    #[schema(schema_with = ip_address)]
    ip_address: Option<String>,
    /// User agent of the client.
    #[schema(max_length = 2048)]
    user_agent: Option<String>,
    /// When the event happened, by the client's clock, from 1970 to 9999; the time of acceptance if absent. A time
    /// without an offset is UTC.
    #[schema(pattern = "^(19[7-9]|[2-9][0-9]{2})")]
    event_timestamp: Option<DateTime<Utc>>,
}

/// Events that are accepted together and processed by one task.
#[derive(ToSchema)]
#[schema(as = Batch, examples(json!({"events": [
    {"event_name": "page_view", "event_type": "engagement", "payload": {"page": "/home"}},
    {"event_name": "button_click", "event_type": "interaction", "payload": {"button_id": "btn_1"}},
]})))]
#[expect(dead_code, reason = "describes what body.rs parses")]
pub(crate) struct BatchDocument {
    /// The events. `event_ids` has the same order.
    #[schema(min_items = 1, max_items = 100)]
    events: Vec<EventDocument>,
}

fn payload() -> Object {
    nullable_object("Data of the event, any JSON object; `{}` if absent.")
}

fn properties() -> Object {
    nullable_object("Result of the processing; null until the event is processed.")
}

fn nullable_object(description: &str) -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some(description))
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .build()
}

fn ip_address() -> Schema {
    let text = |format| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(format)))
            .max_length(Some(45))
    };
    AnyOfBuilder::new()
        .description(Some("An IPv4 or IPv6 address."))
        .item(text(KnownFormat::Ipv4))
        .item(text(KnownFormat::Ipv6))
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .build()
        .into()
}

/// A stored event.
#[derive(Serialize, ToSchema)]
#[schema(as = StoredEvent)]
pub(crate) struct EventAnswer {
    /// Id of the event.
    #[schema(minimum = 1)]
    id: i64,
    /// Id of the user who posted the event.
    user_id: i64,
    /// Name of the event.
    event_name: String,
    /// Type of the event.
    event_type: String,
    /// Source of the event.
    #[schema(required = true)]
    source: Option<String>,
    /// Session of the client.
    #[schema(required = true)]
    session_id: Option<String>,
    /// The payload. Its values are equal to those that were sent, except for characters that a warning reported as
    /// replaced. Numbers keep all their digits. The text may differ: white space, key order, duplicate keys (only the
    /// last one is kept) and the spelling of numbers.
    #[schema(value_type = Object, additional_properties)]
    payload: Box<RawValue>,
    #[schema(required = true, schema_with = properties)]
    properties: Option<Box<RawValue>>,
    /// An IPv4 or IPv6 address.
    #[schema(required = true)]
    ip_address: Option<String>,
    /// User agent of the client.
    #[schema(required = true)]
    user_agent: Option<String>,
    /// When the event happened.
    event_timestamp: DateTime<Utc>,
    /// When the event was accepted.
    created_at: DateTime<Utc>,
    /// Whether the event was processed successfully.
    processed: bool,
    /// When the event was processed; null until then.
    #[schema(required = true)]
    processed_at: Option<DateTime<Utc>>,
    /// Last error of a dead or cancelled task; null after success.
    #[schema(required = true)]
    processing_error: Option<String>,
    /// Id of the task that processes the event.
    task_id: Uuid,
}

impl From<StoredEvent> for EventAnswer {
    fn from(event: StoredEvent) -> Self {
        let StoredEvent {
            id,
            user_id,
            event_name,
            event_type,
            source,
            session_id,
            payload,
            properties,
            ip_address,
            user_agent,
            event_timestamp,
            created_at,
            processed,
            processed_at,
            processing_error,
            task_id,
        } = event;
        Self {
            id,
            user_id,
            event_name,
            event_type,
            source,
            session_id,
            payload: payload.0,
            properties: properties.map(|json| json.0),
            ip_address,
            user_agent,
            event_timestamp,
            created_at,
            processed,
            processed_at,
            processing_error,
            task_id,
        }
    }
}

/// A page of events, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventPage {
    /// Events of the page.
    pub events: Vec<EventAnswer>,
    /// Maximum number of events on the page.
    pub limit: i64,
    /// Number of events that were skipped by `offset`; 0 with a cursor.
    pub offset: i64,
    /// Value of `cursor` for the next page; null on the last page.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// Numbers of unprocessed events of the user.
#[derive(Serialize, ToSchema)]
pub(crate) struct UnprocessedAnswer {
    /// Number of events of unsettled and dead tasks.
    #[schema(minimum = 0)]
    unprocessed_count: i64,
    /// Number of events of dead tasks.
    #[schema(minimum = 0)]
    failed_count: i64,
    /// Number of events whose task waits for a retry.
    #[schema(minimum = 0)]
    retrying_count: i64,
    /// Age of the oldest event of an unsettled task, in seconds; null if there is none.
    #[schema(required = true)]
    oldest_unprocessed_age_seconds: Option<f64>,
}

impl From<UnprocessedEvents> for UnprocessedAnswer {
    fn from(counts: UnprocessedEvents) -> Self {
        let UnprocessedEvents { unprocessed, failed, oldest_age_seconds, retrying } = counts;
        Self {
            unprocessed_count: unprocessed,
            failed_count: failed,
            retrying_count: retrying,
            oldest_unprocessed_age_seconds: oldest_age_seconds,
        }
    }
}
