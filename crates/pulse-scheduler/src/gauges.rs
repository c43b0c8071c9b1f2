//! The job that counts the backlog and publishes it.

use chrono::{DateTime, Utc};
use pulse_queue::{Depth, Gauges};
use pulse_store::{Backlog, QueueLengths, TaskTotals};
use tokio::time::Instant;

use crate::context::{Context, JobError};
use crate::counted::Counted;
use crate::duty::Duty;

/// One of this many counts of the backlog reads from the beginning.
const FULL_COUNT: u32 = 300;

/// What the job remembers between its runs.
#[derive(Debug, Default)]
pub(crate) struct BacklogCount {
    counts: u32,
    count: Duty,
    last: Option<Counted>,
}

impl BacklogCount {
    /// The time from which unsettled tasks were due, at the last count.
    pub(crate) fn due_from(&self) -> DateTime<Utc> {
        self.last.as_ref().map_or(DateTime::UNIX_EPOCH, |counted| counted.backlog.due_from)
    }

    pub(crate) async fn publish(&mut self, context: &Context) -> Result<(), JobError> {
        let Context { store, queue, metrics } = context;
        let now = store.now().await?;
        let totals = store.task_totals().await?;
        let backlog = self.backlog(totals, context).await?;
        let depth = queue.depth().await;
        let undelivered = depth.as_ref().map_or(0, |depth| i64::try_from(depth.undelivered()).unwrap_or(i64::MAX));
        let due_not_enqueued = (backlog.due - undelivered).max(0);
        metrics.record(&backlog, depth.as_ref().ok(), due_not_enqueued);
        metrics.paused.set(store.find_pause().await?.is_some().into());
        let snapshot = store.oldest_snapshot().await?;
        metrics.oldest_snapshot.set(snapshot.map_or(0, |snapshot| snapshot.transactions));
        store.record_gauges(&backlog, depth.as_ref().ok().map(queue_lengths)).await?;
        depth?;
        let gauges = Gauges {
            at_ms: now.timestamp_millis(),
            unsettled: backlog.unsettled,
            due_not_enqueued,
            next_due_ms: backlog.next_due_ms.unwrap_or(-1),
            oldest_due_ms: backlog.oldest_due_ms.unwrap_or(-1),
            accepted_total: totals.accepted,
            attempts_total: totals.attempts,
            retried_total: totals.retried,
            attempt_ms_total: totals.attempt_ms,
        };
        Ok(queue.publish_gauges(&gauges).await?)
    }

    /// The backlog: counted, or if it was so large that counting has to rest, the last count and what has changed since.
    async fn backlog(&mut self, totals: TaskTotals, context: &Context) -> Result<Backlog, JobError> {
        let mut due_from = DateTime::UNIX_EPOCH;
        if let Some(counted) = &self.last {
            let estimate = counted.now(totals);
            let share = estimate.unsettled as f64 / counted.backlog.unsettled.max(1) as f64;
            if !self.count.may_run(share) {
                return Ok(estimate);
            }
            // From time to time from the beginning, for tasks of transactions that took long.
            if !self.counts.is_multiple_of(FULL_COUNT) {
                due_from = counted.backlog.due_from;
            }
        }
        self.counts = self.counts.wrapping_add(1);
        let started = Instant::now();
        let backlog = context.store.count_backlog(due_from).await?;
        self.count.record(started);
        self.last = Some(Counted { backlog: backlog.clone(), totals, at: started });
        Ok(backlog)
    }
}

fn queue_lengths(depth: &Depth) -> QueueLengths {
    let length = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    QueueLengths { undelivered: length(depth.undelivered()), in_flight: length(depth.in_flight) }
}
