//! The figures of now.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::connection::Store;
use crate::console::percentiles::Percentiles;
use crate::error::StoreError;
use crate::pause::Pause;

/// The figures of now. One per second is enough for any number of viewers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Overview {
    /// PostgreSQL's time.
    pub now: DateTime<Utc>,
    /// Per second, over the last whole minute and the present one.
    pub rates: Rates,
    /// Durations of attempts, over the same time.
    pub attempt: Percentiles,
    /// Times from acceptance to completion, over the same time.
    pub completion: Percentiles,
    /// Events accepted since the database was created. The difference of two readings gives the rate between them.
    pub accepted_events_total: i64,
    /// Events of completed tasks since the database was created.
    pub completed_events_total: i64,
    /// What the scheduler measured last; `None` before its first measurement.
    pub gauges: Option<GaugesRow>,
    /// Seconds until the backlog is empty, at the present rates; `None` if it is empty or does not shrink.
    pub drain_seconds: Option<f64>,
    /// Number of workers whose last heartbeat is recent.
    pub workers: i64,
    /// Of these, how many drain.
    pub draining: i64,
    /// Number of tasks whose leases they hold.
    pub in_flight: i64,
    /// Number of attempts that they can run at a time.
    pub slots: i64,
    /// The pause of all claims.
    pub pause: Option<Pause>,
}

/// Numbers per second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
pub struct Rates {
    /// Accepted tasks.
    pub accepted: f64,
    /// Accepted events.
    pub accepted_events: f64,
    /// Completed tasks.
    pub completed: f64,
    /// Events of completed tasks.
    pub completed_events: f64,
    /// Failed attempts.
    pub failed: f64,
    /// Failed attempts after which the task runs again.
    pub retried: f64,
    /// Tasks that were dead-lettered.
    pub dead: f64,
}

/// The backlog as the scheduler measured it, every 2 s.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct GaugesRow {
    /// When.
    pub measured_at: DateTime<Utc>,
    /// Number of pending tasks.
    pub pending: i64,
    /// Number of running tasks.
    pub running: i64,
    /// Number of retrying tasks.
    pub retrying: i64,
    /// Number of tasks that are due and not leased.
    pub due: i64,
    /// Of these, how many are not on the stream.
    pub due_not_enqueued: i64,
    /// Number of tasks that are not due yet.
    pub delayed: i64,
    /// Number of dead letters.
    pub dead: i64,
    /// Age of the oldest unsettled task, in seconds; 0 without one.
    pub oldest_age_seconds: f64,
    /// Number of entries on the streams that no worker has read; `None` if Redis did not answer.
    pub undelivered: Option<i64>,
    /// Number of entries that workers have read and not acknowledged; `None` if Redis did not answer.
    pub in_flight: Option<i64>,
}

impl GaugesRow {
    /// Number of unsettled tasks.
    pub fn unsettled(&self) -> i64 {
        self.pending + self.running + self.retrying
    }
}

/// Numbers of tasks by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
#[expect(missing_docs, reason = "these are the states")]
pub struct StateCounts {
    pub pending: i64,
    pub running: i64,
    pub retrying: i64,
    pub dead: i64,
    /// Since the database was created.
    pub completed: i64,
    /// At most 10,001, which means more than 10,000.
    pub cancelled: i64,
}

impl Store {
    /// The figures of now. Reads one row for each running writer and worker.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn overview(&self) -> Result<Overview, StoreError> {
        let row = sqlx::query_file!("src/console/overview.sql").fetch_one(&self.pool).await?;
        let per_second = |count: i64| count as f64 / row.seconds;
        let rates = Rates {
            accepted: per_second(row.accepted),
            accepted_events: per_second(row.accepted_events),
            completed: per_second(row.completed),
            completed_events: per_second(row.completed_events),
            failed: per_second(row.failed),
            retried: per_second(row.retried),
            dead: per_second(row.dead),
        };
        let gauges = self.gauges().await?;
        Ok(Overview {
            now: row.now,
            drain_seconds: drain_seconds(gauges.as_ref().map_or(0, GaugesRow::unsettled), rates),
            rates,
            attempt: Percentiles::of(&row.attempt_times),
            completion: Percentiles::of(&row.completion_times),
            accepted_events_total: row.accepted_total,
            completed_events_total: row.completed_total,
            gauges,
            workers: row.workers,
            draining: row.draining,
            in_flight: row.in_flight,
            slots: row.slots,
            pause: self.find_pause().await?,
        })
    }

    /// What the scheduler measured last.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn gauges(&self) -> Result<Option<GaugesRow>, StoreError> {
        let gauges = sqlx::query_as!(
            GaugesRow,
            "SELECT measured_at, pending, running, retrying, due, due_not_enqueued, delayed, dead, oldest_age_seconds,
                    undelivered, in_flight
             FROM gauges",
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(gauges)
    }

    /// Numbers of tasks by state, as the scheduler measured them last.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn state_counts(&self) -> Result<StateCounts, StoreError> {
        let counts = sqlx::query_as!(
            StateCounts,
            r#"SELECT coalesce(pending, 0) AS "pending!", coalesce(running, 0) AS "running!",
                      coalesce(retrying, 0) AS "retrying!", coalesce(dead, 0) AS "dead!",
                      (SELECT coalesce(sum(completed), 0)::bigint FROM throughput
                       WHERE period IN ('live', 'all') AND event_name = '') AS "completed!",
                      (SELECT count(*) FROM (SELECT FROM task_history WHERE outcome = 'cancelled' LIMIT 10001) AS capped)
                      AS "cancelled!"
               FROM (VALUES (true)) AS one (one) LEFT JOIN gauges USING (one)"#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(counts)
    }
}

/// The time until `backlog` tasks are completed although others are accepted meanwhile.
fn drain_seconds(backlog: i64, rates: Rates) -> Option<f64> {
    let net = rates.completed + rates.dead - rates.accepted;
    (backlog > 0 && net > 0.0).then(|| backlog as f64 / net)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backlog_drains_only_if_more_is_settled_than_accepted() {
        let rates = |accepted, completed| Rates { accepted, completed, ..Rates::default() };
        assert_eq!(drain_seconds(340, rates(184.0, 218.0)), Some(10.0));
        assert_eq!(drain_seconds(340, rates(218.0, 218.0)), None);
        assert_eq!(drain_seconds(0, rates(1.0, 2.0)), None);
    }
}
