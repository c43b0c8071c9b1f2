//! The backlog as PostgreSQL knows it, and maintenance of partitions. All figures count tasks.

use chrono::{DateTime, Utc};

use crate::connection::Store;
use crate::error::StoreError;

/// Counts of unsettled and dead tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// Unsettled tasks: pending, running or retrying.
    pub unsettled: i64,
    /// Unsettled and not leased, before the first attempt.
    pub pending: i64,
    /// Leased, also if the lease has expired.
    pub running: i64,
    /// Unsettled and not leased, after a failed attempt.
    pub retrying: i64,
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
    /// Age of the oldest of the tasks that are due and not on the stream, since it became due, in milliseconds; `None`
    /// without one.
    pub oldest_due_ms: Option<i64>,
    /// Age of the oldest unsettled task; 0 without one.
    pub oldest_age_seconds: f64,
    /// No unsettled task was due before this time, unless its transaction took more than 10 s.
    pub due_from: DateTime<Utc>,
    /// Rows of `events` outside the monthly partitions; should be 0.
    pub default_partition_rows: i64,
}

/// Totals since the database was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskTotals {
    /// Tasks accepted.
    pub accepted: i64,
    /// Attempts that ended. An event that fails within a batch counts as an attempt too.
    pub attempts: i64,
    /// Attempts that ended in a retry.
    pub retried: i64,
    /// Time that passed in attempts, in milliseconds; that of a running one counts as it passes.
    pub attempt_ms: i64,
}

/// Numbers of entries of the queue in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLengths {
    /// Not delivered to a worker yet.
    pub undelivered: i64,
    /// Delivered and not acknowledged.
    pub in_flight: i64,
}

impl Store {
    /// Counts the backlog, among the tasks that were due from `due_from` on. The cost grows with the number of unsettled tasks.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn count_backlog(&self, due_from: DateTime<Utc>) -> Result<Backlog, StoreError> {
        let backlog = sqlx::query_as!(
            Backlog,
            r#"
            SELECT counts.unsettled AS "unsettled!", counts.pending AS "pending!", counts.running AS "running!",
                   counts.unsettled - counts.pending - counts.running AS "retrying!", counts.due AS "due!", counts.due_not_enqueued AS "due_not_enqueued!",
                   counts.delayed AS "delayed!",
                   (SELECT count(*) FROM dead_tasks) AS "dead!", counts.next_due_ms, counts.oldest_due_ms,
                   coalesce(counts.oldest_age_seconds, 0) AS "oldest_age_seconds!",
                   LEAST(counts.first_due, now() - interval '10 s') AS "due_from!",
                   (SELECT count(*) FROM events_default) AS "default_partition_rows!"
            FROM (SELECT count(*) AS unsettled, count(lease_until) AS running,
                         count(*) FILTER (WHERE lease_until IS NULL AND attempts = 0) AS pending,
                         count(*) FILTER (WHERE run_at <= now() AND (lease_until IS NULL OR lease_until < now())) AS due,
                         count(*) FILTER (WHERE run_at <= now() AND enqueued_at IS NULL AND lease_until IS NULL) AS due_not_enqueued,
                         count(*) FILTER (WHERE run_at > now()) AS delayed,
                         (extract(epoch FROM min(run_at) FILTER (WHERE run_at > now()) - now()) * 1000)::bigint AS next_due_ms,
                         (extract(epoch FROM now() - min(run_at) FILTER (WHERE run_at <= now() AND enqueued_at IS NULL AND lease_until IS NULL)) * 1000)::bigint AS oldest_due_ms,
                         extract(epoch FROM now() - min(created_at))::float8 AS oldest_age_seconds,
                         min(run_at) AS first_due
                  FROM tasks WHERE run_at >= $1) AS counts
            "#,
            due_from,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(backlog)
    }

    /// Reads the totals.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn task_totals(&self) -> Result<TaskTotals, StoreError> {
        let totals = sqlx::query_as!(
            TaskTotals,
            r#"SELECT coalesce(sum(accepted), 0)::bigint AS "accepted!", coalesce(sum(completed + failed), 0)::bigint AS "attempts!",
                      coalesce(sum(retried), 0)::bigint AS "retried!", div(coalesce(sum(attempt_us), 0), 1000)::bigint AS "attempt_ms!"
               FROM throughput WHERE period IN ('live', 'all') AND event_name = ''"#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(totals)
    }

    /// Records the backlog for the console, with the lengths of the queue: `None` if Redis does not answer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn record_gauges(&self, backlog: &Backlog, queue: Option<QueueLengths>) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH counted AS (
                 INSERT INTO throughput (period, start, writer, backlog)
                 VALUES ('live', date_trunc('minute', now()), 'scheduler/gauges', $10)
                 ON CONFLICT (period, event_name, start, writer) DO UPDATE
                 SET backlog = excluded.backlog WHERE throughput.backlog < excluded.backlog
             )
             INSERT INTO gauges (measured_at, pending, running, retrying, due, due_not_enqueued, delayed, dead,
                                 oldest_age_seconds, undelivered, in_flight, due_from)
             VALUES (now(), $1, $2, $3, $4, $5, $6, $7, $8, $9, $11, $12)
             ON CONFLICT (one) DO UPDATE
             SET measured_at = now(), pending = excluded.pending, running = excluded.running,
                 retrying = excluded.retrying, due = excluded.due, due_not_enqueued = excluded.due_not_enqueued,
                 delayed = excluded.delayed, dead = excluded.dead, oldest_age_seconds = excluded.oldest_age_seconds,
                 undelivered = excluded.undelivered, in_flight = excluded.in_flight, due_from = excluded.due_from",
            backlog.pending,
            backlog.running,
            backlog.retrying,
            backlog.due,
            backlog.due_not_enqueued,
            backlog.delayed,
            backlog.dead,
            backlog.oldest_age_seconds,
            queue.map(|queue| queue.undelivered),
            backlog.unsettled,
            queue.map(|queue| queue.in_flight),
            backlog.due_from,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
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
}
