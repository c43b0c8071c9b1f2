//! What only PostgreSQL knows about the backlog, and the upkeep of partitions and totals. All figures count tasks.

use crate::connection::Store;
use crate::error::StoreError;

/// The backlog as PostgreSQL sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// Every unsettled task.
    pub unsettled: i64,
    /// Due now and not leased: in the stream, or waiting for the sweep.
    pub due: i64,
    /// Due now, and Redis has not been told of this run.
    pub due_not_enqueued: i64,
    /// Waiting for its retry.
    pub delayed: i64,
    /// Given up.
    pub dead: i64,
    /// Milliseconds until the next retry is due.
    pub next_due_ms: Option<i64>,
    /// Age of the oldest unsettled task.
    pub oldest_age_seconds: f64,
    /// Tasks accepted, ever.
    pub accepted_total: i64,
    /// Tasks that workers finished or dead, ever.
    pub settled_total: i64,
    /// Time of fully busy workers, ever, in milliseconds: `settled_total` divided by it is what one of them can do.
    /// Two workers of which half is in use count as one; see pulse-worker's `busy.rs`.
    pub busy_worker_ms: i64,
    /// Rows that no monthly partition foresaw; must be 0.
    pub default_partition_rows: i64,
}

impl Store {
    /// Reads the backlog.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let backlog = sqlx::query_as!(
            Backlog,
            r#"
            SELECT counts.unsettled AS "unsettled!", counts.due AS "due!", counts.due_not_enqueued AS "due_not_enqueued!", counts.delayed AS "delayed!",
                   (SELECT count(*) FROM dead_tasks) AS "dead!", counts.next_due_ms,
                   coalesce(counts.oldest_age_seconds, 0) AS "oldest_age_seconds!",
                   totals.accepted AS "accepted_total!", totals.settled AS "settled_total!", totals.busy_ms AS "busy_worker_ms!",
                   (SELECT count(*) FROM events_default) AS "default_partition_rows!"
            FROM (SELECT count(*) AS unsettled,
                         count(*) FILTER (WHERE run_at <= now() AND (lease_until IS NULL OR lease_until < now())) AS due,
                         count(*) FILTER (WHERE run_at <= now() AND enqueued_at IS NULL AND lease_until IS NULL) AS due_not_enqueued,
                         count(*) FILTER (WHERE run_at > now()) AS delayed,
                         (extract(epoch FROM min(run_at) FILTER (WHERE run_at > now()) - now()) * 1000)::bigint AS next_due_ms,
                         extract(epoch FROM now() - min(created_at))::float8 AS oldest_age_seconds
                  FROM tasks) AS counts,
                 (SELECT coalesce(sum(accepted), 0)::bigint AS accepted, coalesce(sum(settled), 0)::bigint AS settled,
                         div(coalesce(sum(busy_us), 0), 1000)::bigint AS busy_ms
                  FROM throughput) AS totals
            "#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(backlog)
    }

    /// Creates the monthly partitions that are missing up to `months_ahead`; returns how many were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ensure_partitions(&self, months_ahead: i32) -> Result<i32, StoreError> {
        let created = sqlx::query_scalar!(
            r#"SELECT ensure_month_partitions('events', $1) + ensure_month_partitions('task_history', $1) AS "created!""#,
            months_ahead,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(created)
    }

    /// Adds the totals of writers that have been silent for an hour into one row, so that restarts leave no rows behind.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fold_throughput(&self) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH silent AS (
                 DELETE FROM throughput WHERE updated_at < now() - interval '1 hour' AND writer <> 'folded' RETURNING *
             )
             INSERT INTO throughput AS folded (writer, accepted, settled, busy_us)
             SELECT 'folded', coalesce(sum(accepted), 0), coalesce(sum(settled), 0), coalesce(sum(busy_us), 0) FROM silent
             ON CONFLICT (writer) DO UPDATE
             SET accepted = folded.accepted + excluded.accepted, settled = folded.settled + excluded.settled,
                 busy_us = folded.busy_us + excluded.busy_us, updated_at = now()",
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
