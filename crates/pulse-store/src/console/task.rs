//! All that is known of one task.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;
use crate::tasks::TaskStatus;
use crate::workers::WorkerRow;

/// Maximum number of events of a batch in [`TaskDetail`].
const EVENTS: i64 = 100;

/// All that is known of one task.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TaskDetail {
    /// The task, with its failed attempts.
    pub task: TaskStatus,
    /// The `sub` of its user; `None` if the user was deleted.
    pub user: Option<String>,
    /// The first 100 of its events that are not deleted, without their payloads.
    pub events: Vec<TaskEvent>,
    /// The worker of the latest attempt, if it ran during the last hour.
    pub worker: Option<WorkerRow>,
    /// Number of dead letters with the same error, at most 1,001, which means more than 1,000; `None` if it is not dead.
    pub same_error: Option<i64>,
}

/// An event of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaskEvent {
    /// Id.
    pub id: i64,
    /// Name.
    pub event_name: String,
    /// Type.
    pub event_type: String,
    /// Source.
    pub source: Option<String>,
    /// Session.
    pub session_id: Option<String>,
    /// When it happened, as the client says.
    pub event_timestamp: DateTime<Utc>,
    /// Time of acceptance.
    pub created_at: DateTime<Utc>,
    /// When it was processed.
    pub processed_at: Option<DateTime<Utc>>,
    /// Why it could not be processed.
    pub processing_error: Option<String>,
    /// Size of the payload, in bytes of JSON.
    pub payload_bytes: i32,
}

impl Store {
    /// All that is known of a task of `user_id`, or of any user; `None` if there is no such task.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn task_detail(&self, user_id: Option<i64>, id: Uuid) -> Result<Option<TaskDetail>, StoreError> {
        let Some(task) = self.find_task(user_id, id).await? else { return Ok(None) };
        let user = sqlx::query_scalar!("SELECT subject FROM users WHERE id = $1", task.user_id)
            .fetch_optional(&self.pool)
            .await?;
        let events = sqlx::query_as!(
            TaskEvent,
            r#"SELECT id, event_name, event_type, source, session_id, event_timestamp, created_at, processed_at,
                      processing_error, octet_length(payload::text) AS "payload_bytes!"
               FROM events WHERE id = ANY ($1) AND created_at = $2 AND user_id = $3 ORDER BY id LIMIT $4"#,
            &task.event_ids[..task.event_ids.len().min(EVENTS as usize)],
            task.created_at,
            task.user_id,
            EVENTS,
        )
        .fetch_all(&self.pool)
        .await?;
        let worker = match &task.worker {
            Some(name) => self.workers_named(Some(name)).await?.pop(),
            None => None,
        };
        let same_error = if task.state == "dead" { self.same_error(id).await? } else { None };
        Ok(Some(TaskDetail { task, user, events, worker, same_error }))
    }

    async fn same_error(&self, id: Uuid) -> Result<Option<i64>, StoreError> {
        let count = sqlx::query_scalar!(
            r#"SELECT (SELECT count(*) FROM (
                   SELECT FROM dead_tasks AS other
                   WHERE other.reason = dead.reason AND other.error_group = dead.error_group LIMIT 1001
               ) AS same) AS "count!"
               FROM dead_tasks AS dead WHERE id = $1"#,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(count)
    }
}
