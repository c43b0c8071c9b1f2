//! Events, posted and stored.

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

/// An event to post. Unknown fields are ignored, but named in `warnings`; `Prefer: handling=strict` refuses them.
/// `timestamp` is another name for `event_timestamp`.
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
    /// What happened.
    #[schema(min_length = 1, max_length = 255)]
    event_name: String,
    /// The class of what happened.
    #[schema(min_length = 1, max_length = 100)]
    event_type: String,
    /// Where it came from.
    #[schema(max_length = 100)]
    source: Option<String>,
    /// The client's session.
    #[schema(max_length = 255)]
    session_id: Option<String>,
    #[schema(schema_with = payload)]
    payload: Option<Value>,
    #[schema(schema_with = ip_address)]
    ip_address: Option<String>,
    /// The client's user agent.
    #[schema(max_length = 2048)]
    user_agent: Option<String>,
    /// When it happened, by the client's clock, from 1970 to 9999; the time of acceptance if absent.
    #[schema(pattern = "^(19[7-9]|[2-9][0-9]{2})")]
    event_timestamp: Option<DateTime<Utc>>,
}

/// Events that are accepted together and processed together, by one task.
#[derive(ToSchema)]
#[schema(as = Batch, examples(json!({"events": [
    {"event_name": "page_view", "event_type": "engagement", "payload": {"page": "/home"}},
    {"event_name": "button_click", "event_type": "interaction", "payload": {"button_id": "btn_1"}},
]})))]
#[expect(dead_code, reason = "describes what body.rs parses")]
pub(crate) struct BatchDocument {
    /// The events, in the order in which their ids come back.
    #[schema(min_items = 1, max_items = 100)]
    events: Vec<EventDocument>,
}

fn payload() -> Object {
    nullable_object("Anything that you want to keep with it; `{}` if absent.")
}

fn properties() -> Object {
    nullable_object("What processing made of the payload, null until then.")
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

/// A whole event.
#[derive(Serialize, ToSchema)]
#[schema(as = StoredEvent)]
pub(crate) struct EventAnswer {
    /// The event's id.
    #[schema(minimum = 1)]
    id: i64,
    /// Whose event it is.
    user_id: i64,
    /// What happened.
    event_name: String,
    /// The class of what happened.
    event_type: String,
    /// Where it came from.
    #[schema(required = true)]
    source: Option<String>,
    /// The client's session.
    #[schema(required = true)]
    session_id: Option<String>,
    /// As it was sent; numbers keep all their digits.
    #[schema(value_type = Object, additional_properties)]
    payload: Box<RawValue>,
    #[schema(required = true, schema_with = properties)]
    properties: Option<Box<RawValue>>,
    /// An IPv4 or IPv6 address.
    #[schema(required = true)]
    ip_address: Option<String>,
    /// The client's user agent.
    #[schema(required = true)]
    user_agent: Option<String>,
    /// When it happened.
    event_timestamp: DateTime<Utc>,
    /// When it was accepted.
    created_at: DateTime<Utc>,
    /// Whether it was processed.
    processed: bool,
    /// When it was processed.
    #[schema(required = true)]
    processed_at: Option<DateTime<Utc>>,
    /// Why it could not be processed.
    #[schema(required = true)]
    processing_error: Option<String>,
    /// The task that processes it.
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
    /// The events.
    pub events: Vec<EventAnswer>,
    /// The largest number of events that this page could have had.
    pub limit: i64,
    /// How many events were left out by `offset`; 0 with a cursor.
    pub offset: i64,
    /// Send it as `cursor` for the next page; null on the last one.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// How many of the caller's events still wait.
#[derive(Serialize, ToSchema)]
pub(crate) struct UnprocessedAnswer {
    /// Events that are not processed, the failed ones among them.
    #[schema(minimum = 0)]
    unprocessed_count: i64,
    /// Events whose task was given up.
    #[schema(minimum = 0)]
    failed_count: i64,
    /// Events whose task waits for its next attempt.
    #[schema(minimum = 0)]
    retrying_count: i64,
    /// Age of the oldest event that is still going to be processed.
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
