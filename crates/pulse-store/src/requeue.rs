//! Requeue: finds unsettled tasks that Redis can no longer deliver, so that the scheduler enqueues them again.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// A task to enqueue again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequeuedTask {
    /// Id of the task.
    pub task_id: Uuid,
    /// Owner of its events.
    pub user_id: i64,
    /// Size of its events for the limits of a worker, in bytes.
    pub bytes: i64,
    /// The W3C trace context of the request that posted it.
    pub traceparent: Option<String>,
}

/// Bounds of the search for lost tasks, by PostgreSQL's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostBounds {
    /// A task without a lease that was enqueued before this time is lost.
    pub lost_before: DateTime<Utc>,
    /// The same for the tasks of deep users, which wait on another stream.
    pub deep_lost_before: DateTime<Utc>,
    /// The deep users.
    pub deep_users: Vec<i64>,
    /// The search is among the tasks that were due from this time on.
    pub from: DateTime<Utc>,
    /// The search ends before the tasks that were due at this time.
    pub until: DateTime<Utc>,
}

impl Store {
    /// Returns PostgreSQL's time.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn now(&self) -> Result<DateTime<Utc>, StoreError> {
        Ok(sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&self.pool).await?)
    }

    /// Marks up to `limit` tasks as enqueued now, and returns them for the stream:
    ///
    /// * due retries, which are not on the stream;
    /// * with `lost`, lost tasks: not leased, and enqueued before the time up to which their stream was delivered.
    ///
    /// Retries have their own partial index. The others were delivered once, and a stream is first in, first out, so the
    /// backlog after `until` is not read.
    ///
    /// # Errors
    /// [`StoreError`]. No task is marked.
    pub async fn requeue(&self, lost: Option<&LostBounds>, limit: i64) -> Result<Vec<RequeuedTask>, StoreError> {
        let requeued = sqlx::query_as!(
            RequeuedTask,
            r#"
            WITH retries AS (
                SELECT id FROM tasks
                WHERE enqueued_at IS NULL AND run_at <= now() AND lease_until IS NULL
                ORDER BY run_at LIMIT $3 FOR UPDATE SKIP LOCKED
            ), lost AS (
                SELECT id FROM tasks
                WHERE $1::timestamptz IS NOT NULL AND run_at >= $6 AND run_at < $2 AND lease_until IS NULL
                      AND enqueued_at < CASE WHEN user_id = ANY ($4) THEN $5::timestamptz ELSE $1 END
                ORDER BY run_at LIMIT $3 FOR UPDATE SKIP LOCKED
            ), found AS (
                SELECT * FROM retries UNION ALL SELECT * FROM lost
            ), counted AS (
                INSERT INTO throughput (period, start, writer, requeued)
                SELECT 'live', date_trunc('minute', now()), 'scheduler/requeue', count(*) FROM lost HAVING count(*) > 0
                ON CONFLICT (period, event_name, start, writer) DO UPDATE
                SET requeued = throughput.requeued + excluded.requeued
            )
            UPDATE tasks SET enqueued_at = now()
            FROM found WHERE tasks.id = found.id
            RETURNING tasks.id AS task_id, user_id, bytes, traceparent
            "#,
            lost.map(|bounds| bounds.lost_before),
            lost.map(|bounds| bounds.until),
            limit,
            lost.map(|bounds| bounds.deep_users.as_slice()),
            lost.map(|bounds| bounds.deep_lost_before),
            lost.map(|bounds| bounds.from),
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(requeued)
    }

    /// Returns when the oldest task without a lease was due, among those that were due from `from` to before `until`.
    ///
    /// Reads the entries of settled tasks that are still in the index before it, so a search that begins there need not
    /// read them again. There are many while a long transaction runs.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn oldest_waiting(
        &self,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, StoreError> {
        let oldest = sqlx::query_scalar!(
            "SELECT run_at FROM tasks WHERE run_at >= $1 AND run_at < $2 AND lease_until IS NULL ORDER BY run_at LIMIT 1",
            from,
            until,
        );
        Ok(oldest.fetch_optional(&self.pool).await?)
    }

    /// Clears the mark of tasks that could not be enqueued, so that the next requeue finds them.
    ///
    /// # Errors
    /// [`StoreError`]. The tasks count as lost after the time that the scheduler allows.
    pub async fn unmark_enqueued(&self, ids: &[Uuid]) -> Result<(), StoreError> {
        sqlx::query!("UPDATE tasks SET enqueued_at = NULL WHERE id = ANY ($1) AND lease_until IS NULL", ids)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
