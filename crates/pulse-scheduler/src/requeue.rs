//! The job that enqueues due and lost tasks.

use std::time::Duration;

use chrono::{DateTime, Utc};
use pulse_queue::Entry;
use pulse_store::RequeuedTask;
use tokio::time::Instant;

use crate::context::{Context, JobError};
use crate::duty::Duty;
use crate::lost::lost_bounds;

/// Maximum number of tasks in one statement of the requeue job.
const REQUEUE_BATCH: i64 = 5000;
/// Maximum time of one run of the requeue job; the next run continues.
const REQUEUE_TIME_LIMIT: Duration = Duration::from_secs(2);
/// While users are deep, one of this many runs of the requeue job also reads the tasks after those that the bulk stream
/// has delivered: nearly all of them are its backlog, and reading it each second would cost in proportion to it.
const WHOLE_SEARCH: u32 = 10;
/// One of this many runs of the requeue job searches from the beginning, for tasks of transactions that committed more than
/// ten seconds after they began.
const FULL_SEARCH: u32 = 600;

/// What the job remembers between its runs.
#[derive(Debug, Default)]
pub(crate) struct Requeue {
    runs: u32,
    search: Duty,
    /// No task without a lease was due before this time.
    searched_until: DateTime<Utc>,
}

impl Requeue {
    pub(crate) async fn run(&mut self, context: &Context) -> Result<(), JobError> {
        let Context { store, queue, metrics } = context;
        let delivered = queue.delivered().await?;
        metrics.deep_users.set(i64::try_from(delivered.deep_users.len()).unwrap_or(i64::MAX));
        let mut bounds = lost_bounds(delivered, store.now().await?, self.runs.is_multiple_of(WHOLE_SEARCH));
        let started = Instant::now();
        let may_search = self.search.may_run(1.0);
        if may_search {
            bounds.from = self.search_from(bounds.until, context).await?;
        }
        self.runs = self.runs.wrapping_add(1);
        let lost = may_search.then_some(&bounds);
        loop {
            let searched = Instant::now();
            let tasks = store.requeue(lost, REQUEUE_BATCH).await?;
            let full = tasks.len() as i64 >= REQUEUE_BATCH;
            if lost.is_some() && !full {
                self.search.record(searched);
            }
            if tasks.is_empty() {
                return Ok(());
            }
            let ids: Vec<_> = tasks.iter().map(|task| task.task_id).collect();
            let entries: Vec<Entry> = tasks.into_iter().map(entry).collect();
            if let Err(error) = queue.publish(&entries).await {
                store.unmark_enqueued(&ids).await?;
                return Err(error.into());
            }
            metrics.requeued.inc_by(ids.len() as u64);
            tracing::debug!(tasks = ids.len(), "requeued tasks");
            if !full || started.elapsed() > REQUEUE_TIME_LIMIT {
                return Ok(());
            }
        }
    }

    /// Returns the time from which tasks may be lost: there is no older task without a lease.
    async fn search_from(&mut self, until: DateTime<Utc>, context: &Context) -> Result<DateTime<Utc>, JobError> {
        if self.runs.is_multiple_of(FULL_SEARCH) {
            self.searched_until = DateTime::UNIX_EPOCH;
        }
        if self.searched_until < until {
            self.searched_until = context.store.oldest_waiting(self.searched_until, until).await?.unwrap_or(until);
        }
        Ok(self.searched_until)
    }
}

fn entry(task: RequeuedTask) -> Entry {
    let RequeuedTask { task_id, user_id, bytes, traceparent } = task;
    Entry { task_id, user_id, bytes: bytes.unsigned_abs(), traceparent }
}
