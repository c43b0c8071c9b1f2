//! The registry of workers, with the throughput of each.

use crate::connection::Store;
use crate::console::percentiles::Percentiles;
use crate::error::StoreError;
use crate::workers::WorkerRow;

impl Store {
    /// The workers of the last hour, by name, those that run first; at most 100.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn workers(&self) -> Result<Vec<WorkerRow>, StoreError> {
        self.workers_named(None).await
    }

    /// One worker, or all.
    pub(super) async fn workers_named(&self, name: Option<&str>) -> Result<Vec<WorkerRow>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT name, version, started_at, seen_at, concurrency, running, in_flight, last_claim_at, longest_task,
                      longest_since,
                      CASE WHEN state <> 'stopped' AND seen_at < now() - interval '25 s' THEN 'gone' ELSE state END AS "state!",
                      coalesce(recent.completed, 0) / seconds.recent AS "completed!",
                      coalesce(recent.failed, 0) / seconds.recent AS "failed!",
                      coalesce(recent.attempt_times, '{}') AS "attempt_times!"
               FROM workers
               CROSS JOIN (SELECT (60 + extract(epoch FROM now() - date_trunc('minute', now())))::float8 AS recent) AS seconds
               LEFT JOIN (
                   SELECT writer, sum(completed)::float8 AS completed, sum(failed)::float8 AS failed,
                          sum_histograms(attempt_times) AS attempt_times
                   FROM throughput
                   WHERE period = 'live' AND event_name = '' AND start >= date_trunc('minute', now()) - interval '1 minute'
                   GROUP BY writer
               ) AS recent ON recent.writer = workers.name || '/settle'
               WHERE $1::text IS NULL OR name = $1
               ORDER BY state = 'stopped' OR seen_at < now() - interval '25 s', name LIMIT 100"#,
            name,
        )
        .fetch_all(&self.pool)
        .await?;
        let row = rows.into_iter().map(|row| WorkerRow {
            name: row.name,
            version: row.version,
            state: row.state,
            started_at: row.started_at,
            seen_at: row.seen_at,
            concurrency: row.concurrency,
            running: row.running,
            in_flight: row.in_flight,
            last_claim_at: row.last_claim_at,
            longest_task: row.longest_task,
            longest_since: row.longest_since,
            completed_per_second: row.completed,
            failed_per_second: row.failed,
            attempt_p95: Percentiles::of(&row.attempt_times).p95,
        });
        Ok(row.collect())
    }
}
