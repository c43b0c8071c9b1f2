//! The scheduler's jobs.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::connection::Store;
use crate::error::StoreError;

/// The jobs, and the scheduler that runs them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Schedules {
    /// The leader; `None` before the first one.
    pub leader: Option<Leader>,
    /// The jobs, by name.
    pub jobs: Vec<ScheduleRow>,
}

/// The leader of the schedulers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Leader {
    /// Its name.
    pub holder: String,
    /// Grows with each change of the leader.
    pub term: i64,
    /// End of its lease. In the past: no scheduler runs.
    pub expires_at: DateTime<Utc>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ScheduleRow {
    /// Its name.
    pub name: String,
    /// Time at which the last run was due.
    pub last_run_at: DateTime<Utc>,
    /// Time at which the next run is due; `None` before the first one.
    pub next_run_at: Option<DateTime<Utc>>,
    /// Duration of the last run that ended, in milliseconds.
    pub last_duration_ms: Option<i64>,
    /// `succeeded` or `failed`.
    pub last_outcome: Option<String>,
}

impl Store {
    /// The jobs, and the scheduler that runs them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn schedules(&self) -> Result<Schedules, StoreError> {
        let leader = sqlx::query_as!(Leader, "SELECT holder, term, expires_at FROM leases WHERE name = 'scheduler'")
            .fetch_optional(&self.pool)
            .await?;
        let jobs = sqlx::query_as!(
            ScheduleRow,
            "SELECT name, last_run_at, next_run_at, last_duration_ms, last_outcome FROM jobs ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(Schedules { leader, jobs })
    }
}
