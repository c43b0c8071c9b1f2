//! The figures of a time range, in steps, for charts.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::connection::Store;
use crate::console::percentiles::Percentiles;
use crate::error::StoreError;

/// The time range of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Range {
    /// The last hour, in steps of a minute.
    Hour,
    /// The last 24 hours, in steps of ten minutes.
    Day,
    /// The last seven days, in steps of an hour.
    Week,
}

impl Range {
    /// The length of a step, in seconds.
    pub fn step_seconds(self) -> u32 {
        match self {
            Self::Hour => 60,
            Self::Day => 600,
            Self::Week => 3600,
        }
    }

    /// Number of steps.
    fn steps(self) -> i32 {
        match self {
            Self::Hour => 60,
            Self::Day => 144,
            Self::Week => 168,
        }
    }

    /// The period of the stored figures.
    fn period(self) -> &'static str {
        match self {
            Self::Hour => "minute",
            Self::Day | Self::Week => "ten_minutes",
        }
    }
}

/// The figures of a time range.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Series {
    /// The time range.
    pub range: Range,
    /// The length of a step, in seconds.
    pub step_seconds: u32,
    /// One for each step, oldest first. The last step is not over yet.
    pub points: Vec<Point>,
}

/// The figures of one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Point {
    /// The beginning of the step.
    pub start: DateTime<Utc>,
    /// Length of the step so far, in seconds: less than a whole step only for the last one.
    pub seconds: f64,
    /// Accepted tasks.
    pub accepted: i64,
    /// Accepted events.
    pub accepted_events: i64,
    /// Completed tasks.
    pub completed: i64,
    /// Events of completed tasks.
    pub completed_events: i64,
    /// Failed attempts.
    pub failed: i64,
    /// Failed attempts after which the task runs again.
    pub retried: i64,
    /// Tasks that were dead-lettered.
    pub dead: i64,
    /// Refused settlements: their lease was lost.
    pub refused: i64,
    /// Lost tasks that were enqueued again.
    pub requeued: i64,
    /// Maximum number of unsettled tasks; 0 also if no scheduler measured it.
    pub backlog: i64,
    /// Durations of attempts.
    pub attempt: Percentiles,
    /// Times from acceptance to completion.
    pub completion: Percentiles,
}

/// The figures of one event name.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct NameRow {
    /// Name of the events; `other` for those that are too rare to be counted alone.
    pub event_name: String,
    /// Completed tasks.
    pub completed: i64,
    /// Failed attempts.
    pub failed: i64,
    /// Tasks that were dead-lettered.
    pub dead: i64,
    /// Durations of attempts.
    pub attempt: Percentiles,
}

impl Store {
    /// The figures of a time range. Reads at most 1,500 stored rows, and one for each running writer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn series(&self, range: Range) -> Result<Series, StoreError> {
        let rows = sqlx::query_file!(
            "src/console/series.sql",
            range.period(),
            f64::from(range.step_seconds()),
            range.steps(),
        )
        .fetch_all(&self.pool)
        .await?;
        let points = rows.into_iter().map(|row| Point {
            start: row.start,
            seconds: row.seconds,
            accepted: row.accepted,
            accepted_events: row.accepted_events,
            completed: row.completed,
            completed_events: row.completed_events,
            failed: row.failed,
            retried: row.retried,
            dead: row.dead,
            refused: row.refused,
            requeued: row.requeued,
            backlog: row.backlog,
            attempt: Percentiles::of(&row.attempt_times),
            completion: Percentiles::of(&row.completion_times),
        });
        Ok(Series { range, step_seconds: range.step_seconds(), points: points.collect() })
    }

    /// The figures of each event name in a time range, most tasks first: at most 51 of ten minutes each. Batches count
    /// for the name of their first event. Workers report them with their heartbeats, so they are up to 10 s late.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn event_names(&self, range: Range, limit: i64) -> Result<Vec<NameRow>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT event_name, sum(completed)::bigint AS "completed!", sum(failed)::bigint AS "failed!",
                      sum(dead)::bigint AS "dead!", sum_histograms(attempt_times) AS "attempt_times!"
               FROM throughput
               WHERE period IN ('ten_minutes', 'live') AND event_name > ''
                     AND start >= now() - make_interval(secs => $1)
               GROUP BY event_name ORDER BY sum(completed + failed) DESC, event_name LIMIT $2"#,
            f64::from(range.step_seconds()) * f64::from(range.steps()),
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        let row = rows.into_iter().map(|row| NameRow {
            event_name: row.event_name,
            completed: row.completed,
            failed: row.failed,
            dead: row.dead,
            attempt: Percentiles::of(&row.attempt_times),
        });
        Ok(row.collect())
    }
}
