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

impl TailFilter {
    /// Whether the event meets all conditions.
    pub fn matches(&self, event: &EventRow) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, value: Option<&T>) -> bool {
            wanted.is_none() || wanted == value
        }
        is(self.user_id.as_ref(), Some(&event.user_id))
            && is(self.event_name.as_ref(), Some(&event.event_name))
            && is(self.event_type.as_ref(), Some(&event.event_type))
            && is(self.source.as_ref(), event.source.as_ref())
    }
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
    /// The key of its user.
    #[serde(skip)]
    pub user_id: i64,
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
    /// The newest `limit` events with an id below `below`, among the first 10,000 of these.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn event_tail(
        &self,
        filter: &TailFilter,
        below: Option<i64>,
        limit: i64,
    ) -> Result<EventTail, StoreError> {
        let below = below.unwrap_or(i64::MAX);
        let mut events = sqlx::query_as!(
            EventRow,
            r#"SELECT id, created_at, event_timestamp, user_id,
                      (SELECT subject FROM users WHERE users.id = walked.user_id) AS user,
                      event_name, event_type, source, session_id, processed, task_id
               FROM (SELECT * FROM events WHERE id < $1 ORDER BY id DESC LIMIT $2) AS walked
               WHERE ($3::bigint IS NULL OR user_id = $3) AND ($4::text IS NULL OR event_name = $4)
                     AND ($5::text IS NULL OR event_type = $5) AND ($6::text IS NULL OR source = $6)
               ORDER BY id DESC LIMIT $7"#,
            below,
            WALK,
            filter.user_id,
            filter.event_name.as_deref(),
            filter.event_type.as_deref(),
            filter.source.as_deref(),
            limit + 1,
        )
        .fetch_all(&self.pool)
        .await?;
        if events.len() as i64 > limit {
            events.pop();
            let next = events.last().map(|event| event.id);
            return Ok(EventTail { events, next });
        }
        let next = sqlx::query_scalar!(
            "SELECT id FROM events WHERE id < $1 ORDER BY id DESC OFFSET $2 LIMIT 1",
            below,
            WALK - 1,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(EventTail { events, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_of_events_matches_what_meets_all_its_conditions() {
        let event = EventRow {
            id: 1,
            created_at: DateTime::UNIX_EPOCH,
            event_timestamp: DateTime::UNIX_EPOCH,
            user_id: 7,
            user: Some("ada".into()),
            event_name: "paid".into(),
            event_type: "commerce".into(),
            source: None,
            session_id: None,
            processed: false,
            task_id: Uuid::nil(),
        };
        let matches = |filter: TailFilter| filter.matches(&event);
        let some = |text: &str| Some(text.to_owned());
        assert!(matches(TailFilter::default()));
        assert!(matches(TailFilter { user_id: Some(7), event_name: some("paid"), ..TailFilter::default() }));
        assert!(!matches(TailFilter { user_id: Some(8), event_name: some("paid"), ..TailFilter::default() }));
        assert!(!matches(TailFilter { event_type: some("other"), ..TailFilter::default() }));
        assert!(!matches(TailFilter { source: some("web"), ..TailFilter::default() }));
    }
}
