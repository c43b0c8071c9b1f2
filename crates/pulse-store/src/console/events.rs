//! The newest events of all users.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// Maximum number of events that one call looks at.
const WALK: i64 = 10_000;

/// Conditions on events, combined with AND.
#[derive(Debug, Clone, Default)]
pub struct TailFilter {
    /// Owner.
    pub user_id: Option<i64>,
    /// Name.
    pub event_name: Option<String>,
    /// Type.
    pub event_type: Option<String>,
    /// Source.
    pub source: Option<String>,
}

/// An event, without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventRow {
    /// Id.
    pub id: i64,
    /// Time of acceptance.
    pub created_at: DateTime<Utc>,
    /// When it happened, as the client says.
    pub event_timestamp: DateTime<Utc>,
    /// The `sub` of its user; `None` if the user was deleted.
    pub user: Option<String>,
    /// Name.
    pub event_name: String,
    /// Type.
    pub event_type: String,
    /// Source.
    pub source: Option<String>,
    /// Session.
    pub session_id: Option<String>,
    /// Whether its task is completed.
    pub processed: bool,
    /// The task that it was posted with.
    pub task_id: Uuid,
}

/// Some events, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventTail {
    /// The events.
    pub events: Vec<EventRow>,
    /// The id below which the next page begins; `None` on the last one.
    pub next: Option<i64>,
}

impl Store {
    /// The newest `limit` events with an id below `below` and above `above`, among the first 10,000 of these. With the id
    /// of the newest one as `above`, the next call returns what is new.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn event_tail(
        &self,
        filter: &TailFilter,
        below: Option<i64>,
        above: Option<i64>,
        limit: i64,
    ) -> Result<EventTail, StoreError> {
        let (below, above) = (below.unwrap_or(i64::MAX), above.unwrap_or(0));
        let mut events = sqlx::query_as!(
            EventRow,
            r#"SELECT id, created_at, event_timestamp,
                      (SELECT subject FROM users WHERE users.id = walked.user_id) AS user,
                      event_name, event_type, source, session_id, processed, task_id
               FROM (SELECT * FROM events WHERE id < $1 AND id > $2 ORDER BY id DESC LIMIT $8) AS walked
               WHERE ($3::bigint IS NULL OR user_id = $3) AND ($4::text IS NULL OR event_name = $4)
                     AND ($5::text IS NULL OR event_type = $5) AND ($6::text IS NULL OR source = $6)
               ORDER BY id DESC LIMIT $7"#,
            below,
            above,
            filter.user_id,
            filter.event_name.as_deref(),
            filter.event_type.as_deref(),
            filter.source.as_deref(),
            limit + 1,
            WALK,
        )
        .fetch_all(&self.pool)
        .await?;
        if events.len() as i64 > limit {
            events.pop();
            let next = events.last().map(|event| event.id);
            return Ok(EventTail { events, next });
        }
        let next = sqlx::query_scalar!(
            "SELECT id FROM events WHERE id < $1 AND id > $2 ORDER BY id DESC OFFSET $3 LIMIT 1",
            below,
            above,
            WALK - 1,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(EventTail { events, next })
    }
}
