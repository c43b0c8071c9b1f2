//! Reads of tasks in any state, and administration of dead tasks.

use chrono::{DateTime, Utc};
use pulse_core::Attempt;
use serde::Serialize;
use sqlx::types::Json;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// A task: unsettled, settled or dead.
#[derive(Debug, Clone)]
pub struct TaskStatus {
    /// Id of the task.
    pub id: Uuid,
    /// `process_event` or `process_events_batch`.
    pub kind: String,
    /// `pending`, `running`, `retrying`, `completed`, `orphaned`, `cancelled` or `dead`.
    pub state: String,
    /// Ids of its events, in the order of the request.
    pub event_ids: Vec<i64>,
    /// Number of attempts started.
    pub attempts: i32,
    /// Maximum number of attempts; `None` once settled.
    pub max_attempts: Option<i32>,
    /// Failed attempts.
    pub errors: Json<Vec<Attempt>>,
    /// Time of acceptance.
    pub created_at: DateTime<Utc>,
    /// Start of the latest attempt.
    pub started_at: Option<DateTime<Utc>>,
    /// Time of settlement; for a dead task, the time at which it was dead-lettered.
    pub settled_at: Option<DateTime<Utc>>,
    /// Earliest time of the next attempt; `None` while it runs and once it is settled.
    pub next_run_at: Option<DateTime<Utc>>,
    /// Worker of the latest attempt.
    pub worker: Option<String>,
    /// The W3C trace context of the request that posted it.
    pub traceparent: Option<String>,
    /// The id of the request that posted it.
    pub request_id: Option<String>,
}

/// A dead task.
#[derive(Debug, Clone, Serialize)]
pub struct DeadTask {
    /// Id of the task.
    pub id: Uuid,
    /// Owner of its events.
    pub user_id: i64,
    /// `process_event` or `process_events_batch`.
    pub kind: String,
    /// Reason of the last failure.
    pub reason: String,
    /// Error of the last attempt.
    pub error: Option<String>,
    /// Ids of its events, in the order of the request.
    pub event_ids: Vec<i64>,
    /// Number of attempts started.
    pub attempts: i32,
    /// Time at which it was dead-lettered.
    pub dead_at: DateTime<Utc>,
}

/// Conditions on dead tasks, combined with AND; without any, all match.
#[derive(Debug, Clone, Default)]
pub struct DeadTaskFilter {
    /// Ids of tasks.
    pub ids: Option<Vec<Uuid>>,
    /// Reason of the last failure.
    pub reason: Option<String>,
}

/// A statement that deletes the oldest matching dead tasks, and inserts the `chosen` rows elsewhere.
macro_rules! move_dead_tasks {
    ($insert:literal, $filter:expr, $limit:expr $(,)?) => {
        sqlx::query!(
            "WITH chosen AS (
                 DELETE FROM dead_tasks WHERE id = ANY (ARRAY(
                     SELECT id FROM dead_tasks
                     WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND ($2::text IS NULL OR reason = $2)
                     ORDER BY dead_at, id LIMIT $3 FOR UPDATE SKIP LOCKED))
                 RETURNING *
             )
             "
                + $insert,
            $filter.ids.as_deref(),
            $filter.reason.as_deref(),
            $limit,
        )
    };
}

impl Store {
    /// Returns a task of the user; `None` if the task does not exist or has another owner.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn find_task(&self, user_id: i64, id: Uuid) -> Result<Option<TaskStatus>, StoreError> {
        let task = sqlx::query_as!(
            TaskStatus,
            r#"
            SELECT id AS "id!", kind AS "kind!",
                   CASE WHEN lease_until IS NOT NULL THEN 'running' WHEN attempts > 0 THEN 'retrying' ELSE 'pending' END AS "state!",
                   event_ids AS "event_ids!", attempts + (lease_until IS NOT NULL)::int AS "attempts!", max_attempts,
                   errors AS "errors!: Json<Vec<Attempt>>", created_at AS "created_at!", started_at,
                   NULL::timestamptz AS settled_at,
                   CASE WHEN lease_until IS NULL THEN run_at END AS next_run_at, worker, traceparent, request_id
            FROM tasks WHERE id = $2 AND user_id = $1
            UNION ALL
            SELECT id, kind, 'dead', event_ids, attempts, max_attempts, errors, created_at, started_at, dead_at,
                   NULL, worker, traceparent, request_id
            FROM dead_tasks WHERE id = $2 AND user_id = $1
            UNION ALL
            SELECT id, kind, outcome, event_ids, attempts, NULL, errors, created_at, started_at, settled_at,
                   NULL, worker, traceparent, request_id
            FROM task_history WHERE id = $2 AND user_id = $1
            LIMIT 1
            "#,
            user_id,
            id,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(task)
    }

    /// Lists at most `limit` dead tasks, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn list_dead_tasks(&self, filter: &DeadTaskFilter, limit: i64) -> Result<Vec<DeadTask>, StoreError> {
        let tasks = sqlx::query_as!(
            DeadTask,
            r#"SELECT id, user_id, kind, reason, errors -> -1 ->> 'error' AS error, event_ids, attempts, dead_at
               FROM dead_tasks
               WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND ($2::text IS NULL OR reason = $2)
               ORDER BY dead_at DESC, id DESC LIMIT $3"#,
            filter.ids.as_deref(),
            filter.reason.as_deref(),
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(tasks)
    }

    /// Makes at most `limit` dead tasks pending again, with all attempts; returns the number. Id, errors and fencing token
    /// are kept, so that a worker that still runs an old attempt cannot settle the task.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn retry_dead_tasks(&self, filter: &DeadTaskFilter, limit: i64) -> Result<u64, StoreError> {
        let retried = move_dead_tasks!(
            "INSERT INTO tasks (id, kind, user_id, event_ids, created_at, max_attempts, enqueued_at, fencing_token, bytes,
                                errors, traceparent, request_id)
             SELECT id, kind, user_id, event_ids, created_at, max_attempts, NULL, fencing_token, bytes, errors, traceparent,
                    request_id
             FROM chosen",
            filter,
            limit,
        )
        .execute(&self.pool)
        .await?;
        Ok(retried.rows_affected())
    }

    /// Cancels at most `limit` dead tasks, which moves them to `task_history`; returns the number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn cancel_dead_tasks(&self, filter: &DeadTaskFilter, limit: i64) -> Result<u64, StoreError> {
        let cancelled = move_dead_tasks!(
            "INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, started_at,
                                       worker, traceparent, request_id)
             SELECT id, kind, user_id, event_ids, 'cancelled', attempts, errors, created_at, started_at,
                    worker, traceparent, request_id
             FROM chosen",
            filter,
            limit,
        )
        .execute(&self.pool)
        .await?;
        Ok(cancelled.rows_affected())
    }
}
