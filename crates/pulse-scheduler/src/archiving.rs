//! Copies old months to the archive, beside the jobs: a copy may take hours, and the archive may not answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pulse_store::MonthlyTable;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::metrics::SchedulerMetrics;
use crate::retention::Retention;

/// What became of the oldest month without a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopiedMonth {
    /// There is none.
    None,
    /// It cannot be copied now.
    Blocked {
        /// Name of the partition.
        partition: String,
        /// What is in the way.
        by: String,
    },
    /// It changed while it was copied, or another scheduler copies it.
    Changed {
        /// Name of the partition.
        partition: String,
    },
    /// Its copy is complete and compared.
    Verified {
        /// Name of the partition.
        partition: String,
        /// Number of rows.
        rows: u64,
    },
}

/// An archive that months are copied to before they are dropped.
#[async_trait]
pub trait MonthArchive: Send + Sync {
    /// Copies the oldest month of a table that ended longer ago than `keep` and has no copy, or continues to.
    async fn copy_next_month(
        &self,
        table: MonthlyTable,
        keep: Duration,
    ) -> Result<CopiedMonth, Box<dyn std::error::Error + Send + Sync>>;
}

/// Starts copies, one at a time.
pub(crate) struct Archiving {
    archive: Arc<dyn MonthArchive>,
    running: Mutex<Option<JoinHandle<()>>>,
}

impl Archiving {
    pub(crate) fn new(archive: Arc<dyn MonthArchive>) -> Self {
        Self { archive, running: Mutex::default() }
    }

    /// Starts to copy all old months, unless that is still running. A copy outlives leadership: two at a time do no harm.
    pub(crate) async fn start(&self, retention: Retention, metrics: &SchedulerMetrics) {
        let mut running = self.running.lock().await;
        if running.as_ref().is_some_and(|copies| !copies.is_finished()) {
            return;
        }
        let (archive, metrics) = (Arc::clone(&self.archive), metrics.clone());
        *running = Some(tokio::spawn(async move {
            for (table, keep) in retention.monthly_tables() {
                let is_blocked = copy_months(&*archive, table, keep, &metrics).await;
                metrics.archive_blocked.with([table.as_str()]).set(is_blocked.into());
            }
        }));
    }
}

/// Returns whether a month could not be copied.
async fn copy_months(
    archive: &dyn MonthArchive,
    table: MonthlyTable,
    keep: Duration,
    metrics: &SchedulerMetrics,
) -> bool {
    loop {
        match archive.copy_next_month(table, keep).await {
            Ok(CopiedMonth::None) => return false,
            Ok(CopiedMonth::Verified { partition, rows }) => {
                tracing::info!(partition, rows, "copied a month to the archive");
                metrics.archived_rows.with([table.as_str()]).inc_by(rows);
            }
            Ok(CopiedMonth::Changed { partition }) => {
                tracing::info!(partition, "a row changed while the month was copied: copying it again in 15 s");
                return false;
            }
            Ok(CopiedMonth::Blocked { partition, by }) => {
                tracing::warn!(partition, blocked_by = by, "cannot copy a month to the archive: trying again in 15 s");
                return true;
            }
            Err(error) => {
                tracing::warn!(
                    error = &*error as &dyn std::error::Error,
                    "cannot copy a month to the archive: trying again in 15 s"
                );
                return true;
            }
        }
    }
}
