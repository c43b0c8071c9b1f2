//! The JSON of posted and stored events.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use pulse_core::{TEXT_FIELDS, TextFields};
use pulse_store::{StoredEvent, UnprocessedEvents};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AdditionalProperties, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::text_fields::{posted_text, stored_text};

/// An event to post. Unknown fields are ignored and reported in `warnings`; `Prefer: handling=strict` rejects them.
/// `timestamp` is an alias of `event_timestamp`; a `timestamp` that differs from it is ignored in the same way.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what pulse-core parses")]
struct PostedEvent {
    #[schema(schema_with = payload)]
    payload: Option<Value>,
    #[schema(schema_with = event_timestamp)]
    event_timestamp: Option<DateTime<Utc>>,
}

/// The schema of [`PostedEvent`] and of the text fields.
pub(crate) struct EventDocument;

impl PartialSchema for EventDocument {
    fn schema() -> RefOr<Schema> {
        let mut example: Value =
            TEXT_FIELDS.iter().map(|field| (field.name.to_owned(), json!(field.example))).collect();
        example["payload"] = json!({"page": "/dashboard", "duration": 45, "scroll_depth": 75});
        edit_object(PostedEvent::schema(), |object| {
            for field in TEXT_FIELDS {
                object.properties.insert(field.name.to_owned(), posted_text(field).into());
                object.required.extend(field.required.then(|| field.name.to_owned()));
            }
            object.examples = vec![example];
        })
    }
}

impl ToSchema for EventDocument {
    fn name() -> Cow<'static, str> {
        "Event".into()
    }
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

fn edit_object(schema: RefOr<Schema>, edit: impl FnOnce(&mut Object)) -> RefOr<Schema> {
    match schema {
        RefOr::T(Schema::Object(mut object)) => {
            edit(&mut object);
            Schema::Object(object).into()
        }
        other => other,
    }
}

fn payload() -> Object {
    nullable_object(
        "Data of the event, any JSON object; `{}` if absent. The values are kept, and their text is not: read back, keys \
         have another order and numbers another spelling, so compute signatures over values. Numbers are stored without \
         an exponent, so `1e300` becomes 301 bytes. When they are read back, the payload and the text fields may have \
         twice as many bytes as the limit of an event.",
    )
}

fn event_timestamp() -> Object {
    let description = "When the event happened, by the client's clock, in the years 1 to 9999; the time of acceptance \
         if absent. RFC 3339, or another form that pydantic reads: with a space or `_` for the `T`, without seconds, an \
         offset `+0200` or `+02`, a date alone, or the seconds since 1970 (milliseconds above 2e10). A time without an \
         offset is UTC. An empty string is ignored with a warning; `Prefer: handling=strict` rejects it.";
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Number, Type::Null]))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .description(Some(description))
        .build()
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

/// A stored event.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventAnswer {
    /// Id of the event.
    #[schema(minimum = 1)]
    id: i64,
    /// Id of the user who posted the event.
    user_id: i64,
    #[serde(flatten)]
    #[schema(ignore)]
    fields: TextFields,
    /// The payload. Its values are equal to those that were sent, except for characters that a warning reported as
    /// replaced. Numbers keep all their digits. The text may differ: white space, key order, duplicate keys (only the
    /// last one is kept) and the spelling of numbers.
    #[schema(value_type = Object, additional_properties)]
    payload: Box<RawValue>,
    #[schema(required = true, schema_with = properties)]
    properties: Option<Box<RawValue>>,
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

/// The schema of [`EventAnswer`], with the text fields.
pub(crate) struct StoredEventDocument;

impl PartialSchema for StoredEventDocument {
    fn schema() -> RefOr<Schema> {
        edit_object(EventAnswer::schema(), |object| {
            for field in TEXT_FIELDS {
                object.properties.insert(field.name.to_owned(), stored_text(field).into());
                object.required.push(field.name.to_owned());
            }
        })
    }
}

impl ToSchema for StoredEventDocument {
    fn name() -> Cow<'static, str> {
        "StoredEvent".into()
    }
}

impl From<StoredEvent> for EventAnswer {
    fn from(event: StoredEvent) -> Self {
        let StoredEvent {
            id,
            user_id,
            fields,
            payload,
            properties,
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
            fields,
            payload,
            properties,
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
    #[schema(value_type = Vec<StoredEventDocument>)]
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
    /// Number of events with `processed: false`: those of unsettled, dead and cancelled tasks.
    #[schema(minimum = 0)]
    unprocessed_count: i64,
    /// Number of events of dead tasks.
    #[schema(minimum = 0)]
    failed_count: i64,
    /// Number of events of cancelled tasks.
    #[schema(minimum = 0)]
    cancelled_count: i64,
    /// Number of events whose task waits for a retry.
    #[schema(minimum = 0)]
    retrying_count: i64,
    /// Age of the oldest event of an unsettled task, in seconds; null if there is none.
    #[schema(required = true)]
    oldest_unprocessed_age_seconds: Option<f64>,
    /// Whether there may be more events than these numbers say: of a user with more than 10 000 unsettled, dead or cancelled
    /// tasks, 10 000 of each are counted.
    is_minimum: bool,
}

impl From<UnprocessedEvents> for UnprocessedAnswer {
    fn from(counts: UnprocessedEvents) -> Self {
        let UnprocessedEvents { unprocessed, failed, cancelled, oldest_age_seconds, retrying, is_minimum } = counts;
        Self {
            unprocessed_count: unprocessed,
            failed_count: failed,
            cancelled_count: cancelled,
            retrying_count: retrying,
            oldest_unprocessed_age_seconds: oldest_age_seconds,
            is_minimum,
        }
    }
}
