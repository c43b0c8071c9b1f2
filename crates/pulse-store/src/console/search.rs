//! Search by an id: of an event, a task, a request or a trace.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// Maximum number of tasks of one request or trace.
const LIMIT: i64 = 50;

/// What the searched text is the id of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Matched {
    Event,
    Task,
    Request,
    Trace,
}

/// A task that a search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hit {
    /// What the searched text is the id of.
    pub matched: Matched,
    /// The task.
    pub task_id: Uuid,
    /// The event, if it was searched.
    pub event_id: Option<i64>,
    /// Time of acceptance.
    pub created_at: DateTime<Utc>,
}

struct Found {
    task_id: Uuid,
    created_at: DateTime<Utc>,
}

impl Store {
    /// The tasks of an event, task, request or trace with this id: at most 50 of `user_id`, or of all users, the newest
    /// first, and batches before their children. A `traceparent` counts as its trace id.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn search(&self, text: &str, user_id: Option<i64>) -> Result<Vec<Hit>, StoreError> {
        let text = text.trim();
        if let Some(trace_id) = trace_id(text) {
            let found = self.tasks_of_trace(&trace_id, user_id).await?;
            if !found.is_empty() {
                return Ok(hits(Matched::Trace, None, found));
            }
        }
        if let Ok(id) = text.parse::<i64>() {
            let found = self.task_of_event(id, user_id).await?;
            if found.is_some() {
                return Ok(hits(Matched::Event, Some(id), Vec::from_iter(found)));
            }
        }
        if let Ok(id) = Uuid::parse_str(text)
            && let Some(task) = self.find_task(user_id, id).await?
        {
            let found = Found { task_id: task.id, created_at: task.created_at };
            return Ok(hits(Matched::Task, None, vec![found]));
        }
        Ok(hits(Matched::Request, None, self.tasks_of_request(text, user_id).await?))
    }

    /// An event of a batch may have a task for itself, because it failed.
    async fn task_of_event(&self, id: i64, user_id: Option<i64>) -> Result<Option<Found>, StoreError> {
        let found = sqlx::query_as!(
            Found,
            r#"SELECT coalesce(
                          (SELECT child.id FROM settled_tasks_by_id(ARRAY[event.task_id]) AS batch
                           JOIN LATERAL (SELECT id, event_ids FROM tasks WHERE id = ANY (batch.children)
                                         UNION ALL SELECT id, event_ids FROM dead_tasks WHERE id = ANY (batch.children)
                                         UNION ALL SELECT id, event_ids FROM settled_tasks_by_id(batch.children)
                                        ) AS child ON child.event_ids = ARRAY[$1::bigint]
                           WHERE batch.children IS NOT NULL
                           LIMIT 1),
                          task_id) AS "task_id!", created_at AS "created_at!"
               FROM events_by_id(ARRAY[$1::bigint]) AS event
               WHERE $2::bigint IS NULL OR user_id = $2 LIMIT 1"#,
            id,
            user_id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(found)
    }

    async fn tasks_of_request(&self, id: &str, user_id: Option<i64>) -> Result<Vec<Found>, StoreError> {
        let mut found = sqlx::query_as!(
            Found,
            r#"SELECT id AS "task_id!", created_at AS "created_at!" FROM (
                   SELECT id, created_at, user_id FROM tasks WHERE request_id = $1
                   UNION ALL SELECT id, created_at, user_id FROM dead_tasks WHERE request_id = $1
               ) AS found
               WHERE $2::bigint IS NULL OR user_id = $2 LIMIT $3"#,
            id,
            user_id,
            LIMIT,
        )
        .fetch_all(&self.pool)
        .await?;
        let settled = sqlx::query_as!(
            Found,
            "SELECT id AS task_id, created_at FROM task_history
             WHERE request_id = $1 AND ($2::bigint IS NULL OR user_id = $2) LIMIT $3",
            id,
            user_id,
            LIMIT - found.len() as i64,
        );
        found.extend(settled.fetch_all(&self.pool).await?);
        Ok(found)
    }

    async fn tasks_of_trace(&self, id: &str, user_id: Option<i64>) -> Result<Vec<Found>, StoreError> {
        let mut found = sqlx::query_as!(
            Found,
            r#"SELECT id AS "task_id!", created_at AS "created_at!" FROM (
                   SELECT id, created_at, user_id FROM tasks WHERE trace_id(traceparent) = $1
                   UNION ALL SELECT id, created_at, user_id FROM dead_tasks WHERE trace_id(traceparent) = $1
               ) AS found
               WHERE $2::bigint IS NULL OR user_id = $2 LIMIT $3"#,
            id,
            user_id,
            LIMIT,
        )
        .fetch_all(&self.pool)
        .await?;
        let settled = sqlx::query_as!(
            Found,
            "SELECT id AS task_id, created_at FROM task_history
             WHERE trace_id(traceparent) = $1 AND ($2::bigint IS NULL OR user_id = $2) LIMIT $3",
            id,
            user_id,
            LIMIT - found.len() as i64,
        );
        found.extend(settled.fetch_all(&self.pool).await?);
        Ok(found)
    }
}

fn hits(matched: Matched, event_id: Option<i64>, mut found: Vec<Found>) -> Vec<Hit> {
    // A child has the time of its batch and a later id.
    found.sort_unstable_by_key(|task| (Reverse(task.created_at), task.task_id));
    let hit = |Found { task_id, created_at }| Hit { matched, task_id, event_id, created_at };
    found.into_iter().map(hit).collect()
}

/// The trace id in the text, which is a trace id or a `traceparent`.
fn trace_id(text: &str) -> Option<String> {
    let id = match text.split('-').collect::<Vec<_>>()[..] {
        [id] | [_, id, _, _] => id,
        _ => return None,
    };
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_id_is_found_alone_and_in_a_traceparent() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(id).as_deref(), Some(id));
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
        assert_eq!(trace_id(&id.to_uppercase()).as_deref(), Some(id));
        for other in ["0193a8f1-7c22-7d0e-b1f4-66d94c1e9a07", "4711", "shop-1", ""] {
            assert_eq!(trace_id(other), None, "{other}");
        }
    }
}
