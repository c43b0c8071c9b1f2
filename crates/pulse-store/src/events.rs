//! Reads of events: one event, some of them, and the number of unprocessed ones.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use pulse_core::TextFields;
use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// A stored event. JSON stays text, because a large number would lose digits as a double.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the migration and the OpenAPI document describe the columns")]
pub struct StoredEvent {
    pub id: i64,
    pub user_id: i64,
    pub fields: TextFields,
    pub payload: Box<RawValue>,
    pub properties: Option<Box<RawValue>>,
    pub event_timestamp: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub processed: bool,
    pub processed_at: Option<DateTime<Utc>>,
    pub processing_error: Option<String>,
    pub task_id: Uuid,
}

/// A row of `events`.
struct Row {
    id: i64,
    user_id: i64,
    event_name: String,
    event_type: String,
    source: Option<String>,
    session_id: Option<String>,
    payload: Json<Box<RawValue>>,
    properties: Option<Json<Box<RawValue>>>,
    ip_address: Option<String>,
    user_agent: Option<String>,
    event_timestamp: DateTime<Utc>,
    created_at: DateTime<Utc>,
    processed: bool,
    processed_at: Option<DateTime<Utc>>,
    processing_error: Option<String>,
    task_id: Uuid,
}

impl From<Row> for StoredEvent {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            fields: TextFields {
                event_name: row.event_name,
                event_type: row.event_type,
                source: row.source,
                session_id: row.session_id,
                ip_address: row.ip_address,
                user_agent: row.user_agent,
            },
            payload: row.payload.0,
            properties: row.properties.map(|json| json.0),
            event_timestamp: row.event_timestamp,
            created_at: row.created_at,
            processed: row.processed,
            processed_at: row.processed_at,
            processing_error: row.processing_error,
            task_id: row.task_id,
        }
    }
}

/// Conditions on a user's events, combined with AND; `None` matches all.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// The text fields with these names are equal to these values. A name is that of a filterable row of
    /// [`pulse_core::TEXT_FIELDS`].
    pub texts: BTreeMap<&'static str, String>,
    /// Equal to `processed`.
    pub processed: Option<bool>,
    /// Accepted at or after this time.
    pub from: Option<DateTime<Utc>>,
    /// Accepted before this time.
    pub to: Option<DateTime<Utc>>,
}

/// First row of a page.
#[derive(Debug, Clone, Copy)]
pub enum PageStart {
    /// Skips this many events; the cost grows with the number.
    Offset(i64),
    /// Starts after the event with this `created_at` and id.
    After(DateTime<Utc>, i64),
}

/// A user's unprocessed events. All figures count events.
#[derive(Debug, Clone, PartialEq)]
pub struct UnprocessedEvents {
    /// In unsettled, dead or cancelled tasks.
    pub unprocessed: i64,
    /// In dead tasks.
    pub failed: i64,
    /// In cancelled tasks.
    pub cancelled: i64,
    /// Age of the oldest unsettled task; `None` without one.
    pub oldest_age_seconds: Option<f64>,
    /// In tasks that wait for their next attempt.
    pub retrying: i64,
}

impl Store {
    /// Returns an event of the user; `None` if the event does not exist or has another owner.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn find_event(&self, user_id: i64, id: i64) -> Result<Option<StoredEvent>, StoreError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id, user_id, event_name, event_type, source, session_id, payload AS "payload: Json<Box<RawValue>>",
                    properties AS "properties: Json<Box<RawValue>>", ip_address, user_agent,
                    event_timestamp, created_at, processed, processed_at, processing_error, task_id
             FROM events WHERE id = $2 AND user_id = $1"#,
            user_id,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(Into::into))
    }

    /// Reads at most `limit` events of the user, newest first.
    pub(crate) fn read_events<'a>(
        &'a self,
        user_id: i64,
        filter: &EventFilter,
        start: PageStart,
        limit: i64,
    ) -> BoxStream<'a, Result<StoredEvent, StoreError>> {
        let EventFilter { texts, processed, from, to } = filter;
        let text = |name| texts.get(name).map(String::as_str);
        let (offset, after_time, after_id) = match start {
            PageStart::Offset(offset) => (offset, None, None),
            PageStart::After(time, id) => (0, Some(time), Some(id)),
        };
        sqlx::query_as!(
            Row,
            r#"SELECT id, user_id, event_name, event_type, source, session_id, payload AS "payload: Json<Box<RawValue>>",
                    properties AS "properties: Json<Box<RawValue>>", ip_address, user_agent,
                    event_timestamp, created_at, processed, processed_at, processing_error, task_id
             FROM events
             WHERE user_id = $1
               AND ($2::text IS NULL OR event_type = $2)
               AND ($3::text IS NULL OR event_name = $3)
               AND ($4::text IS NULL OR source = $4)
               AND ($5::text IS NULL OR session_id = $5)
               AND ($6::bool IS NULL OR processed = $6)
               AND ($7::timestamptz IS NULL OR created_at >= $7)
               AND ($8::timestamptz IS NULL OR created_at < $8)
               AND ($9::timestamptz IS NULL OR (created_at, id) < ($9, $10::bigint))
             ORDER BY created_at DESC, id DESC
             LIMIT $11 OFFSET $12"#,
            user_id,
            text("event_type"),
            text("event_name"),
            text("source"),
            text("session_id"),
            *processed,
            *from,
            *to,
            after_time,
            after_id,
            limit,
            offset,
        )
        .fetch(&self.pool)
        .map(|row| Ok(row?.into()))
        .boxed()
    }

    /// Counts the user's unprocessed events: the same ones that the filter `processed = false` lists. Reads the tasks that
    /// did not complete, so the cost grows with the user's backlog and not with the user's history.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn count_unprocessed(&self, user_id: i64) -> Result<UnprocessedEvents, StoreError> {
        // One statement, so that a task that moves between the tables meanwhile is counted once.
        let counts = sqlx::query!(
            r#"SELECT unsettled.*, dead.failed AS "failed!", history.cancelled AS "cancelled!"
               FROM (SELECT coalesce(sum(cardinality(event_ids)), 0) AS "events!",
                            coalesce(sum(cardinality(event_ids)) FILTER (WHERE enqueued_at IS NULL), 0) AS "retrying!",
                            extract(epoch FROM now() - min(created_at))::float8 AS oldest_age_seconds
                     FROM tasks WHERE user_id = $1) AS unsettled,
                    (SELECT coalesce(sum(cardinality(event_ids)), 0) AS failed
                     FROM dead_tasks WHERE user_id = $1) AS dead,
                    (SELECT coalesce(sum(cardinality(event_ids)), 0) AS cancelled
                     FROM task_history WHERE user_id = $1 AND outcome = 'cancelled') AS history"#,
            user_id,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(UnprocessedEvents {
            unprocessed: counts.events + counts.failed + counts.cancelled,
            failed: counts.failed,
            cancelled: counts.cancelled,
            oldest_age_seconds: counts.oldest_age_seconds,
            retrying: counts.retrying,
        })
    }
}
