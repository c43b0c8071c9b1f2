//! The job that removes what is older than the administrator wants to keep.

use std::time::Duration;

use pulse_store::{MonthlyTable, OldMonth, Store, StoreError};
use tokio::time::Instant;

use crate::metrics::SchedulerMetrics;

/// How long to keep what; `None` is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Events.
    pub events: Option<Duration>,
    /// Settled tasks.
    pub history: Option<Duration>,
    /// Dead letters.
    pub dead_tasks: Option<Duration>,
}

/// Maximum number of dead letters that one statement deletes.
const DELETE_BATCH: i64 = 5000;
/// Maximum time of one run; the next run continues.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Drops old months, and deletes old dead letters.
pub(crate) async fn run(retention: Retention, store: &Store, metrics: &SchedulerMetrics) -> Result<(), StoreError> {
    let started = Instant::now();
    for (table, keep) in [(MonthlyTable::Events, retention.events), (MonthlyTable::TaskHistory, retention.history)] {
        let Some(keep) = keep else { continue };
        let is_blocked = drop_months(table, keep, store, started).await?;
        metrics.retention_blocked.with([table.as_str()]).set(is_blocked.into());
    }
    if let Some(keep) = retention.dead_tasks {
        while store.delete_old_dead_tasks(keep, DELETE_BATCH).await? >= DELETE_BATCH && started.elapsed() < TIME_LIMIT {
        }
    }
    Ok(())
}

/// Returns whether a month could not be dropped.
async fn drop_months(table: MonthlyTable, keep: Duration, store: &Store, started: Instant) -> Result<bool, StoreError> {
    while started.elapsed() < TIME_LIMIT {
        match store.drop_old_month(table, keep).await? {
            Some(OldMonth { partition, blocked_by: None }) => tracing::info!(partition, "dropped an old month"),
            Some(OldMonth { partition, blocked_by: Some(blocked_by) }) => {
                tracing::warn!(partition, blocked_by, "cannot drop an old month: trying again in 15 s");
                return Ok(true);
            }
            None => break,
        }
    }
    Ok(false)
}
