//! Upkeep of the throughput: folds the rows of writers into those of longer periods, and deletes old ones.
//!
//! The minutes and ten-minute periods that the console draws are made here, from what the transactions that accept and
//! settle have added to the rows of their minute. So they are exact, and they cost these transactions no statement.

use std::collections::HashMap;

use crate::connection::Store;
use crate::error::StoreError;
use crate::workers::NameFigures;

/// Maximum number of event names that are counted separately in ten minutes. The others are counted as `other`.
const EVENT_NAMES: i64 = 50;

/// Maximum number of workers in the registry, apart from those that run.
const WORKERS: i64 = 1000;

impl Store {
    /// Adds what the worker `writer` did since the last call, by event name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn add_name_figures(
        &self,
        writer: &str,
        figures: &HashMap<String, NameFigures>,
    ) -> Result<(), StoreError> {
        if figures.is_empty() {
            return Ok(());
        }
        let column = |value: fn(&NameFigures) -> i64| figures.values().map(value).collect::<Vec<i64>>();
        let names: Vec<&str> = figures.keys().map(String::as_str).collect();
        let durations =
            || figures.iter().flat_map(|(name, of)| of.attempt_seconds.iter().map(move |time| (name, *time)));
        let (named, seconds): (Vec<&str>, Vec<f64>) = durations().map(|(name, time)| (name.as_str(), time)).unzip();
        sqlx::query!(
            "INSERT INTO throughput (period, start, writer, event_name, completed, failed, retried, dead, attempt_times)
             SELECT 'live', date_trunc('minute', now()), $1, name, completed, retried + dead, retried, dead,
                    histogram(ARRAY(SELECT time FROM unnest($6::text[], $7::float8[]) AS of (named, time) WHERE named = name))
             FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) AS figures (name, completed, retried, dead)
             ON CONFLICT (period, event_name, start, writer) DO UPDATE
             SET completed = throughput.completed + excluded.completed, failed = throughput.failed + excluded.failed,
                 retried = throughput.retried + excluded.retried, dead = throughput.dead + excluded.dead,
                 attempt_times = add_histograms(throughput.attempt_times, excluded.attempt_times)",
            writer,
            &names as &[&str],
            &column(|of| of.completed),
            &column(|of| of.retried),
            &column(|of| of.dead),
            &named as &[&str],
            &seconds,
        )
        .execute(&mut *self.probe_connection().await?)
        .await?;
        Ok(())
    }

    /// Folds the rows of the minutes before the last one. A transaction that ends even later adds a row for its minute
    /// again, which the next call folds.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn fold_throughput(&self) -> Result<(), StoreError> {
        sqlx::query_file!("src/fold_throughput.sql").execute(&self.pool).await?;
        self.fold_event_names().await
    }

    /// Counts the rarest event names of each ten minutes as `other`. Only the last half hour can have new ones.
    async fn fold_event_names(&self) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH ranked AS (
                 SELECT event_name, start, row_number() OVER (PARTITION BY start ORDER BY completed + failed DESC) AS place
                 FROM throughput
                 WHERE period = 'ten_minutes' AND event_name NOT IN ('', 'other') AND start > now() - interval '30 minutes'
             ), rare AS (
                 DELETE FROM throughput USING ranked
                 WHERE period = 'ten_minutes' AND place > $1 AND throughput.event_name = ranked.event_name
                       AND throughput.start = ranked.start
                 RETURNING throughput.*
             )
             INSERT INTO throughput (period, event_name, start, completed, failed, retried, dead, attempt_times)
             SELECT 'ten_minutes', 'other', start, sum(completed), sum(failed), sum(retried), sum(dead),
                    sum_histograms(attempt_times)
             FROM rare GROUP BY start
             ON CONFLICT (period, event_name, start, writer) DO UPDATE
             SET completed = throughput.completed + excluded.completed, failed = throughput.failed + excluded.failed,
                 retried = throughput.retried + excluded.retried, dead = throughput.dead + excluded.dead,
                 attempt_times = add_histograms(throughput.attempt_times, excluded.attempt_times)",
            EVENT_NAMES,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Deletes the figures of single minutes after 25 hours and those of ten minutes after 8 days, and the workers that
    /// have not been seen for an hour; of those that do not run, all but the latest 1,000.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn expire_throughput(&self) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH stopped AS (
                 DELETE FROM workers
                 WHERE seen_at < now() - interval '1 hour'
                       OR (state = 'stopped' OR seen_at < now() - interval '25 s')
                          AND name IN (SELECT name FROM workers ORDER BY seen_at DESC OFFSET $1)
             )
             DELETE FROM throughput
             WHERE period = 'minute' AND start < now() - interval '25 hours'
                   OR period = 'ten_minutes' AND start < now() - interval '8 days'",
            WORKERS,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
