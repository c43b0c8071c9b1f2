//! Finds the task that an id names.

use serde::Serialize;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// Maximum number of tasks of one request or trace that are found.
const LIMIT: i64 = 10;

/// What an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdKind {
    /// A task.
    Task,
    /// An event.
    Event,
    /// A request: its `X-Request-Id`.
    Request,
    /// A trace.
    Trace,
}

/// A task that an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundTask {
    /// What the id names.
    pub kind: IdKind,
    /// The task.
    pub task_id: Uuid,
}

impl Store {
    /// Finds the tasks of an event, a task, a request or a trace; of a request or a trace at most 10, the newest first,
    /// and batches before their children. Empty if nothing has this id.
    ///
    /// No index has requests or traces: the whole history is read for them.
    ///
    /// # Errors
    /// [`StoreError::StatementLimit`] if the history of a request or a trace cannot be read within 5 s;
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn find_tasks(&self, id: &str) -> Result<Vec<FoundTask>, StoreError> {
        if let Ok(task_id) = Uuid::parse_str(id)
            && self.find_task(None, task_id).await?.is_some()
        {
            return Ok(vec![FoundTask { kind: IdKind::Task, task_id }]);
        }
        if let Ok(event_id) = id.parse::<i64>() {
            let task_id = sqlx::query_scalar!("SELECT task_id FROM events WHERE id = $1 LIMIT 1", event_id)
                .fetch_optional(&self.pool)
                .await?;
            if let Some(task_id) = task_id {
                return Ok(vec![FoundTask { kind: IdKind::Event, task_id }]);
            }
        }
        // `00-<trace>-<span>-<flags>`: also the whole context is accepted.
        let trace = id.split('-').nth(1).filter(|part| part.len() == 32).unwrap_or(id).to_ascii_lowercase();
        let found = sqlx::query!(
            r#"
            SELECT id AS "id!", is_request AS "is_request!" FROM (
                SELECT id, created_at, parent_id, request_id = $1 AS is_request FROM tasks
                WHERE request_id = $1 OR substr(traceparent, 4, 32) = $2
                UNION ALL
                SELECT id, created_at, parent_id, request_id = $1 FROM dead_tasks
                WHERE request_id = $1 OR substr(traceparent, 4, 32) = $2
                UNION ALL
                SELECT id, created_at, parent_id, request_id = $1 FROM task_history
                WHERE request_id = $1 OR substr(traceparent, 4, 32) = $2
            ) AS found
            ORDER BY parent_id IS NOT NULL, created_at DESC LIMIT $3
            "#,
            id,
            trace,
            LIMIT,
        )
        .fetch_all(&self.pool)
        .await?;
        let kind = |is_request| if is_request { IdKind::Request } else { IdKind::Trace };
        Ok(found.into_iter().map(|row| FoundTask { kind: kind(row.is_request), task_id: row.id }).collect())
    }
}
