//! Reading events: one, a page, and how many still wait.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::types::Json;

use crate::connection::Store;
use crate::error::StoreError;

/// A whole event, every column of the replaced system's model and `task_id`. JSON is kept as text, because a large number
/// would lose digits as a double.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns are documented in the migration and in the HTTP contract")]
pub struct StoredEvent {
    pub id: i64,
    pub user_id: i64,
    pub event_name: String,
    pub event_type: String,
    pub source: Option<String>,
    pub session_id: Option<String>,
    pub payload: Json<Box<RawValue>>,
    pub properties: Option<Json<Box<RawValue>>>,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub event_timestamp: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub processed: bool,
    pub processed_at: Option<DateTime<Utc>>,
    pub processing_error: Option<String>,
    pub task_id: uuid::Uuid,
}

/// Which of a user's events to list; `None` is any.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Exactly this type.
    pub event_type: Option<String>,
    /// Exactly this name.
    pub event_name: Option<String>,
    /// Exactly this source.
    pub source: Option<String>,
    /// Exactly this session.
    pub session_id: Option<String>,
    /// Processed, or not.
    pub processed: Option<bool>,
    /// Accepted at or after.
    pub from: Option<DateTime<Utc>>,
    /// Accepted before.
    pub to: Option<DateTime<Utc>>,
}

/// Where a page starts.
#[derive(Debug, Clone, Copy)]
pub enum PageStart {
    /// Behind this many events.
    Offset(i64),
    /// Behind the event with this time and id.
    After(DateTime<Utc>, i64),
}

/// How many of a user's events still wait. All figures count events.
#[derive(Debug, Clone, PartialEq)]
pub struct UnprocessedEvents {
    /// RequeuedTask or buried.
    pub unprocessed: i64,
    /// Buried.
    pub failed: i64,
    /// Of the oldest owed task.
    pub oldest_age_seconds: Option<f64>,
    /// In a task that waits for its retry.
    pub retrying: i64,
}

impl Store {
    /// The user's event with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_event(&self, user_id: i64, id: i64) -> Result<Option<StoredEvent>, StoreError> {
        let event = sqlx::query_as!(
            StoredEvent,
            r#"SELECT id, user_id, event_name, event_type, source, session_id, payload AS "payload: Json<Box<RawValue>>",
                    properties AS "properties: Json<Box<RawValue>>", ip_address, user_agent,
                    event_timestamp, created_at, processed, processed_at, processing_error, task_id
             FROM events WHERE id = $2 AND user_id = $1"#,
            user_id,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(event)
    }

    /// A page of the user's events, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_events(
        &self,
        user_id: i64,
        filter: &EventFilter,
        start: PageStart,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let EventFilter { event_type, event_name, source, session_id, processed, from, to } = filter;
        let (offset, after_time, after_id) = match start {
            PageStart::Offset(offset) => (offset, None, None),
            PageStart::After(time, id) => (0, Some(time), Some(id)),
        };
        let events = sqlx::query_as!(
            StoredEvent,
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
            event_type.as_deref(),
            event_name.as_deref(),
            source.as_deref(),
            session_id.as_deref(),
            *processed,
            *from,
            *to,
            after_time,
            after_id,
            limit,
            offset,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(events)
    }

    /// How many of the user's events still wait: read from the owed and the buried tasks, so it costs the user's
    /// backlog, not the user's history.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_unprocessed(&self, user_id: i64) -> Result<UnprocessedEvents, StoreError> {
        let owed = sqlx::query!(
            r#"SELECT coalesce(sum(cardinality(event_ids)), 0) AS "events!",
                      coalesce(sum(cardinality(event_ids)) FILTER (WHERE enqueued_at IS NULL), 0) AS "retrying!",
                      extract(epoch FROM now() - min(created_at))::float8 AS oldest_age_seconds
               FROM tasks WHERE user_id = $1"#,
            user_id,
        )
        .fetch_one(&self.pool)
        .await?;
        let failed = sqlx::query_scalar!(
            r#"SELECT coalesce(sum(cardinality(event_ids)), 0) AS "failed!" FROM dead_tasks WHERE user_id = $1"#,
            user_id,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(UnprocessedEvents {
            unprocessed: owed.events + failed,
            failed,
            oldest_age_seconds: owed.oldest_age_seconds,
            retrying: owed.retrying,
        })
    }
}
