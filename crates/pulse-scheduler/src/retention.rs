//! The job that removes what is older than the administrator wants to keep.

use std::time::Duration;

use pulse_store::{MonthlyTable, OldMonth, Store, StoreError};
use tokio::time::Instant;

use crate::context::Context;

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

impl Retention {
    /// The tables whose old months are dropped, and how long their rows are kept.
    pub(crate) fn monthly_tables(&self) -> impl Iterator<Item = (MonthlyTable, Duration)> + use<> {
        let tables = [(MonthlyTable::Events, self.events), (MonthlyTable::TaskHistory, self.history)];
        tables.into_iter().filter_map(|(table, keep)| Some((table, keep?)))
    }
}

/// Drops old months, and deletes old dead letters. With `needs_copy`, months without a copy in the archive are kept.
pub(crate) async fn run(
    retention: Retention,
    needs_copy: bool,
    Context { store, metrics, .. }: &Context,
) -> Result<(), StoreError> {
    let started = Instant::now();
    for (table, keep) in retention.monthly_tables() {
        let is_blocked = drop_months((table, keep, needs_copy), store, started).await?;
        metrics.retention_blocked.with([table.as_str()]).set(is_blocked.into());
    }
    if let Some(keep) = retention.dead_tasks {
        while store.delete_old_dead_tasks(keep, DELETE_BATCH).await? >= DELETE_BATCH && started.elapsed() < TIME_LIMIT {
        }
    }
    Ok(())
}

/// Returns whether a month could not be dropped.
async fn drop_months(
    (table, keep, needs_copy): (MonthlyTable, Duration, bool),
    store: &Store,
    started: Instant,
) -> Result<bool, StoreError> {
    while started.elapsed() < TIME_LIMIT {
        match store.drop_old_month(table, keep, needs_copy).await? {
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
