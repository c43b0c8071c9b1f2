//! Reads of events: one event, some of them, and the number of unprocessed ones.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
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

impl StoredEvent {
    pub(crate) fn position(&self) -> Position {
        Position { time: self.created_at, id: self.id }
    }
}

/// The [`StoredEvent`] in a row of `query!`.
macro_rules! stored_event {
    ($row:ident) => {
        $crate::events::StoredEvent {
            id: $row.id,
            user_id: $row.user_id,
            fields: pulse_core::TextFields {
                event_name: $row.event_name,
                event_type: $row.event_type,
                source: $row.source,
                session_id: $row.session_id,
                ip_address: $row.ip_address,
                user_agent: $row.user_agent,
            },
            payload: $row.payload.0,
            properties: $row.properties.map(|json| json.0),
            event_timestamp: $row.event_timestamp,
            created_at: $row.created_at,
            processed: $row.processed,
            processed_at: $row.processed_at,
            processing_error: $row.processing_error,
            task_id: $row.task_id,
        }
    };
}
pub(crate) use stored_event;

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
    /// Happened at or after this time.
    pub event_from: Option<DateTime<Utc>>,
    /// Happened before this time.
    pub event_to: Option<DateTime<Utc>>,
}

/// First event of a page.
#[derive(Debug, Clone, Copy)]
pub enum PageStart {
    /// Skips this many events that match; the cost grows with the number.
    Offset(i64),
    /// Starts after this position.
    After(Position),
}

/// The place of an event in the list of a user's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// `created_at` of the event.
    pub time: DateTime<Utc>,
    /// Its id, which orders the events of one time.
    pub id: i64,
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
    /// Whether there may be more than counted, because the user has very many unsettled, dead or cancelled tasks.
    pub is_minimum: bool,
}

/// Maximum number of tasks of each kind that a count of unprocessed events reads.
const COUNTED_TASKS: i64 = 10_000;

impl Store {
    /// Returns an event of the user; `None` if the event does not exist or has another owner.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn find_event(&self, user_id: i64, id: i64) -> Result<Option<StoredEvent>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT id AS "id!", user_id AS "user_id!", event_name AS "event_name!", event_type AS "event_type!", source, session_id,
                    payload AS "payload!: Json<Box<RawValue>>", properties AS "properties: Json<Box<RawValue>>",
                    ip_address, user_agent, event_timestamp AS "event_timestamp!", created_at AS "created_at!",
                    processed AS "processed!", processed_at, processing_error, task_id AS "task_id!"
             FROM events_by_id(ARRAY[$2::bigint]) WHERE user_id = $1"#,
            user_id,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| stored_event!(row)))
    }

    /// Counts the user's unprocessed events: the same ones that the filter `processed = false` lists. Reads at most 10,000
    /// unsettled, dead and cancelled tasks each, the oldest unsettled ones first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn count_unprocessed(&self, user_id: i64) -> Result<UnprocessedEvents, StoreError> {
        // One statement, so that a task that moves between the tables meanwhile is counted once.
        let counts = sqlx::query!(
            r#"SELECT unsettled.events AS "events!", unsettled.retrying AS "retrying!", unsettled.oldest_age_seconds,
                      dead.failed AS "failed!", history.cancelled AS "cancelled!",
                      GREATEST(unsettled.tasks, dead.tasks, history.tasks) AS "tasks!"
               FROM (SELECT coalesce(sum(cardinality(event_ids)), 0) AS events, count(*) AS tasks,
                            coalesce(sum(cardinality(event_ids)) FILTER (WHERE enqueued_at IS NULL), 0) AS retrying,
                            extract(epoch FROM now() - min(created_at))::float8 AS oldest_age_seconds
                     FROM (SELECT event_ids, enqueued_at, created_at FROM tasks WHERE user_id = $1
                           ORDER BY run_at LIMIT $2) AS oldest) AS unsettled,
                    (SELECT coalesce(sum(cardinality(event_ids)), 0) AS failed, count(*) AS tasks
                     FROM (SELECT event_ids FROM dead_tasks WHERE user_id = $1 LIMIT $2) AS counted) AS dead,
                    (SELECT coalesce(sum(cardinality(event_ids)), 0) AS cancelled, count(*) AS tasks
                     FROM (SELECT event_ids FROM task_history WHERE user_id = $1 AND outcome = 'cancelled'
                           LIMIT $2) AS counted) AS history"#,
            user_id,
            COUNTED_TASKS,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(UnprocessedEvents {
            unprocessed: counts.events + counts.failed + counts.cancelled,
            failed: counts.failed,
            cancelled: counts.cancelled,
            oldest_age_seconds: counts.oldest_age_seconds,
            retrying: counts.retrying,
            is_minimum: counts.tasks >= COUNTED_TASKS,
        })
    }
}
