//! Reading tasks, wherever they are, and what an administrator does with buried ones.

use chrono::{DateTime, Utc};
use pulse_core::Attempt;
use serde::Serialize;
use sqlx::types::Json;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// A task as it is asked for: owed, settled or buried.
#[derive(Debug, Clone)]
pub struct TaskStatus {
    /// The task.
    pub id: Uuid,
    /// `process_event` or `process_events_batch`.
    pub kind: String,
    /// `queued`, `running`, `retrying`, `processed`, `gone`, `cancelled` or `buried`.
    pub state: String,
    /// Its events.
    pub event_ids: Vec<i64>,
    /// Attempts begun.
    pub attempts: i32,
    /// Attempts allowed; unknown once settled.
    pub max_attempts: Option<i32>,
    /// The attempts that failed.
    pub errors: Json<Vec<Attempt>>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When the newest attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was settled or buried.
    pub settled_at: Option<DateTime<Utc>>,
    /// When it runs next, if it waits for that.
    pub next_run_at: Option<DateTime<Utc>>,
    /// Who worked on it last.
    pub worker: Option<String>,
    /// The W3C trace context of the request that posted it.
    pub traceparent: Option<String>,
    /// The id of the request that posted it.
    pub request_id: Option<String>,
}

/// A buried task, for a list.
#[derive(Debug, Clone, Serialize)]
pub struct DeadTask {
    /// The task.
    pub id: Uuid,
    /// Whose.
    pub user_id: i64,
    /// `process_event` or `process_events_batch`.
    pub kind: String,
    /// Why it was given up.
    pub reason: String,
    /// The newest error.
    pub error: Option<String>,
    /// Its events.
    pub event_ids: Vec<i64>,
    /// Attempts begun.
    pub attempts: i32,
    /// Since when.
    pub dead_at: DateTime<Utc>,
}

/// Which buried tasks; at least one of the two is given, or everything is meant.
#[derive(Debug, Clone, Default)]
pub struct DeadTaskFilter {
    /// Exactly these.
    pub ids: Option<Vec<Uuid>>,
    /// With this reason.
    pub reason: Option<String>,
}

impl Store {
    /// The user's task with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_task(&self, user_id: i64, id: Uuid) -> Result<Option<TaskStatus>, StoreError> {
        let task = sqlx::query_as!(
            TaskStatus,
            r#"
            SELECT id AS "id!", kind AS "kind!",
                   CASE WHEN lease_until IS NOT NULL THEN 'running' WHEN attempts > 0 THEN 'retrying' ELSE 'pending' END AS "state!",
                   event_ids AS "event_ids!", attempts AS "attempts!", max_attempts,
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

    /// Buried tasks, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
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

    /// Makes buried tasks owed again, with all their attempts; returns how many. Ids, errors and the lease number go
    /// on, so that a worker that slept since the first life cannot settle the second.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn retry_dead_tasks(&self, filter: &DeadTaskFilter, limit: i64) -> Result<u64, StoreError> {
        let retried = sqlx::query!(
            "WITH chosen AS (
                 DELETE FROM dead_tasks WHERE id = ANY (ARRAY(
                     SELECT id FROM dead_tasks
                     WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND ($2::text IS NULL OR reason = $2)
                     ORDER BY dead_at, id LIMIT $3 FOR UPDATE SKIP LOCKED))
                 RETURNING *
             )
             INSERT INTO tasks (id, kind, user_id, event_ids, created_at, max_attempts, enqueued_at, fencing_token, errors,
                                traceparent, request_id)
             SELECT id, kind, user_id, event_ids, created_at, max_attempts, NULL, fencing_token, errors, traceparent, request_id
             FROM chosen",
            filter.ids.as_deref(),
            filter.reason.as_deref(),
            limit,
        )
        .execute(&self.pool)
        .await?;
        Ok(retried.rows_affected())
    }

    /// Gives buried tasks up for good: they move to the history as `cancelled`; returns how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel_dead_tasks(&self, filter: &DeadTaskFilter, limit: i64) -> Result<u64, StoreError> {
        let cancelled = sqlx::query!(
            "WITH chosen AS (
                 DELETE FROM dead_tasks WHERE id = ANY (ARRAY(
                     SELECT id FROM dead_tasks
                     WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND ($2::text IS NULL OR reason = $2)
                     ORDER BY dead_at, id LIMIT $3 FOR UPDATE SKIP LOCKED))
                 RETURNING *
             )
             INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, started_at,
                                       worker, traceparent, request_id)
             SELECT id, kind, user_id, event_ids, 'cancelled', attempts, errors, created_at, started_at,
                    worker, traceparent, request_id
             FROM chosen",
            filter.ids.as_deref(),
            filter.reason.as_deref(),
            limit,
        )
        .execute(&self.pool)
        .await?;
        Ok(cancelled.rows_affected())
    }
}
