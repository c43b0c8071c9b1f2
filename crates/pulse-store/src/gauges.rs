//! The backlog as PostgreSQL knows it, and maintenance of partitions and running totals. All figures count tasks.

use crate::connection::Store;
use crate::error::StoreError;

/// Counts of unsettled and dead tasks, and running totals.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// Unsettled tasks: pending, running or retrying.
    pub unsettled: i64,
    /// Due now and not leased: on the stream, or waiting for the requeue job.
    pub due: i64,
    /// Due now and not on the stream.
    pub due_not_enqueued: i64,
    /// Not due yet.
    pub delayed: i64,
    /// Dead letters.
    pub dead: i64,
    /// Milliseconds until the next retry is due; `None` without one.
    pub next_due_ms: Option<i64>,
    /// Age of the oldest unsettled task; 0 without one.
    pub oldest_age_seconds: f64,
    /// Tasks accepted since the database was created.
    pub accepted_total: i64,
    /// Tasks that workers completed or dead-lettered since the database was created.
    pub settled_total: i64,
    /// Busy time of workers since the database was created, in milliseconds. `settled_total` divided by it is the
    /// throughput of one fully busy worker. Two half-busy workers count as one: see pulse-worker's `busy.rs`.
    pub busy_worker_ms: i64,
    /// Rows of `events` outside the monthly partitions; should be 0.
    pub default_partition_rows: i64,
}

impl Store {
    /// Reads the backlog. The cost grows with the number of unsettled tasks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
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

    /// Creates missing monthly partitions up to `months_ahead` months ahead; returns the number. A partition that cannot be
    /// created now, because of a lock, is left for the next call.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn ensure_partitions(&self, months_ahead: i32) -> Result<i32, StoreError> {
        let mut created = 0;
        // One transaction for each table, so that no statement waits for the locks of both.
        for table in ["events", "task_history"] {
            created +=
                sqlx::query_scalar!(r#"SELECT ensure_month_partitions($1, $2) AS "created!""#, table, months_ahead,)
                    .fetch_one(&self.pool)
                    .await?;
        }
        Ok(created)
    }

    /// Adds the totals of writers that wrote nothing for an hour to one row, so that each restart does not leave rows.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
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
