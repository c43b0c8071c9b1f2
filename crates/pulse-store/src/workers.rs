//! The registry of workers: who runs, and what each of them does. Workers write it with their heartbeats.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Claims tasks.
    Running,
    /// Ends its tasks, and claims none.
    Draining,
    /// Has ended.
    Stopped,
}

impl WorkerState {
    /// The name in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// What a worker reports.
#[derive(Debug, Clone)]
pub struct WorkerReport {
    /// What it does.
    pub state: WorkerState,
    /// Its version.
    pub version: &'static str,
    /// Number of attempts that it can run at a time.
    pub concurrency: usize,
    /// Number of attempts that it runs.
    pub running: usize,
    /// Number of tasks whose lease it holds.
    pub in_flight: usize,
    /// Seconds since its last claim.
    pub last_claim_seconds: Option<f64>,
    /// The task whose lease it has held longest, and for how many seconds.
    pub longest: Option<(Uuid, f64)>,
    /// Time that passed in its attempts and is not yet in the running totals.
    pub attempt_time: Duration,
}

/// What became of the attempts of one event name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NameFigures {
    /// Completed tasks.
    pub completed: i64,
    /// Failed attempts after which the task runs again.
    pub retried: i64,
    /// Tasks that were dead-lettered.
    pub dead: i64,
    /// Durations of attempts; not of all, if they are many.
    pub attempt_seconds: Vec<f64>,
}

/// A worker of the registry, with what it did in the last whole minute and in the present one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WorkerRow {
    /// Name, as in the tasks.
    pub name: String,
    /// Version of pulse.
    pub version: String,
    /// `running`, `draining` or `stopped`; `gone` if it has missed two heartbeats.
    pub state: String,
    /// Time of its first report.
    pub started_at: DateTime<Utc>,
    /// Time of its last report.
    pub seen_at: DateTime<Utc>,
    /// Number of attempts that it can run at a time.
    pub concurrency: i32,
    /// Number of attempts that it ran at the last report.
    pub running: i32,
    /// Number of tasks whose lease it held at the last report.
    pub in_flight: i32,
    /// Time of its last claim.
    pub last_claim_at: Option<DateTime<Utc>>,
    /// The task whose lease it had held longest at the last report.
    pub longest_task: Option<Uuid>,
    /// Since when.
    pub longest_since: Option<DateTime<Utc>>,
    /// Tasks completed per second.
    pub completed_per_second: f64,
    /// Failed attempts per second.
    pub failed_per_second: f64,
    /// 95th percentile of the durations of its attempts, in seconds.
    pub attempt_p95: Option<f64>,
}

impl Store {
    /// Records what a worker does, and adds the time of its attempts to the running totals.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn report_worker(&self, name: &str, report: &WorkerReport) -> Result<(), StoreError> {
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        sqlx::query!(
            "WITH counted AS (
                 INSERT INTO throughput (period, start, writer, attempt_us)
                 SELECT 'live', date_trunc('minute', now()), $1, $10 WHERE $10::bigint > 0
                 ON CONFLICT (period, event_name, start, writer) DO UPDATE
                 SET attempt_us = throughput.attempt_us + excluded.attempt_us
             )
             INSERT INTO workers (name, version, state, concurrency, running, in_flight, last_claim_at, longest_task,
                                  longest_since)
             VALUES ($1, $2, $3, $4, $5, $6, now() - make_interval(secs => $7), $8, now() - make_interval(secs => $9))
             ON CONFLICT (name) DO UPDATE
             SET seen_at = now(), state = excluded.state, concurrency = excluded.concurrency, running = excluded.running,
                 in_flight = excluded.in_flight, last_claim_at = excluded.last_claim_at,
                 longest_task = excluded.longest_task, longest_since = excluded.longest_since",
            name,
            report.version,
            report.state.as_str(),
            count(report.concurrency),
            count(report.running),
            count(report.in_flight),
            report.last_claim_seconds,
            report.longest.map(|(task, _)| task),
            report.longest.map(|(_, seconds)| seconds),
            i64::try_from(report.attempt_time.as_micros()).unwrap_or(i64::MAX),
        )
        .execute(&mut *self.probe_connection().await?)
        .await?;
        Ok(())
    }
}
