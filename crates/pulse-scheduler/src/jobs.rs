//! The jobs, and when they run.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pulse_queue::{Depth, Entry, Gauges, Queue, QueueError};
use pulse_store::{Store, StoreError};
use tokio::time::Instant;

use crate::metrics::SchedulerMetrics;

/// A job and its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    /// Six cron fields, seconds first, UTC.
    pub(crate) cron: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Requeue,
    Gauges,
    Reap,
    Partitions,
    ExpireKeys,
    FoldTotals,
}

/// Every job. A sweep each second, so that a retry is at most that late; the gauges are *unknown* after 10 s.
pub(crate) const JOBS: [Job; 6] = [
    Job { name: "requeue", cron: "* * * * * *", kind: Kind::Requeue },
    Job { name: "publish_gauges", cron: "*/2 * * * * *", kind: Kind::Gauges },
    Job { name: "reap_deliveries", cron: "*/10 * * * * *", kind: Kind::Reap },
    Job { name: "create_partitions", cron: "0 0 * * * *", kind: Kind::Partitions },
    Job { name: "expire_idempotency_keys", cron: "30 * * * * *", kind: Kind::ExpireKeys },
    Job { name: "fold_throughput", cron: "0 */10 * * * *", kind: Kind::FoldTotals },
];

/// Tasks of one statement of the sweep.
const REQUEUE_BATCH: i64 = 5000;
/// A sweep ends after this long; the next one goes on.
const REQUEUE_TIME_LIMIT: Duration = Duration::from_secs(2);
/// How much the clocks of Redis and PostgreSQL may be apart after their offset was measured.
const CLOCK_MARGIN: TimeDelta = TimeDelta::seconds(1);
/// A delivery that nobody touched for this long is stale: twice a worker's lease.
const STALE_DELIVERY: Duration = Duration::from_secs(60);
/// A consumer that has not read for this long is dead: it reads every 2 s.
const SILENT_CONSUMER: Duration = Duration::from_secs(300);
/// Partitions exist this many months ahead.
const MONTHS_AHEAD: i32 = 12;

pub(crate) struct Jobs {
    store: Store,
    queue: Queue,
    lost_after: TimeDelta,
    metrics: SchedulerMetrics,
}

#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// Up to when tasks can be lost, by PostgreSQL's clock.
#[derive(Debug, PartialEq, Eq)]
struct Horizon {
    /// Not leased and enqueued before this: lost.
    lost_before: DateTime<Utc>,
    /// The stream was delivered up to here.
    delivered_until: DateTime<Utc>,
}

impl Jobs {
    pub(crate) fn new(store: Store, queue: Queue, lost_after: Duration, metrics: SchedulerMetrics) -> Self {
        Self { store, queue, lost_after: TimeDelta::from_std(lost_after).unwrap_or(TimeDelta::MAX), metrics }
    }

    /// Runs a job; a failure is told, and the next tick tries again.
    pub(crate) async fn run(&self, job: Job) {
        let result = match job.kind {
            Kind::Requeue => self.requeue().await,
            Kind::Gauges => self.publish_gauges().await,
            Kind::Reap => self.reap().await,
            Kind::Partitions => self.store.ensure_partitions(MONTHS_AHEAD).await.map(drop).map_err(JobError::from),
            Kind::ExpireKeys => self.store.expire_idempotency_keys(10_000).await.map(drop).map_err(JobError::from),
            Kind::FoldTotals => self.store.fold_throughput().await.map_err(JobError::from),
        };
        match result {
            Ok(()) => {}
            // While Redis is away workers poll PostgreSQL, and say so.
            Err(JobError::Queue(error)) => {
                tracing::debug!(job = job.name, error = &error as &dyn std::error::Error, "Redis is away")
            }
            Err(error) => tracing::warn!(job = job.name, error = &error as &dyn std::error::Error, "job failed"),
        }
    }

    async fn requeue(&self) -> Result<(), JobError> {
        let dead = self.store.dead_letter_crashed(REQUEUE_BATCH).await?;
        self.metrics.count_crashed(0, dead);
        if dead > 0 {
            tracing::error!(tasks = dead, "tasks dead: their workers died in every attempt");
        }
        let depth = self.queue.depth().await?;
        let Horizon { lost_before, delivered_until } = horizon(&depth, self.store.now().await?, self.lost_after);
        let started = Instant::now();
        loop {
            let tasks = self.store.requeue(lost_before, delivered_until, REQUEUE_BATCH).await?;
            if tasks.is_empty() {
                return Ok(());
            }
            self.metrics.count_crashed(tasks.iter().filter(|tasks| tasks.crashed).count() as u64, 0);
            let full = tasks.len() as i64 >= REQUEUE_BATCH;
            let ids: Vec<_> = tasks.iter().map(|tasks| tasks.task_id).collect();
            let entries: Vec<Entry> = tasks
                .into_iter()
                .map(|tasks| Entry { task_id: tasks.task_id, traceparent: tasks.traceparent })
                .collect();
            if let Err(error) = self.queue.publish(&entries).await {
                self.store.unmark_enqueued(&ids).await?;
                return Err(error.into());
            }
            self.metrics.requeued.inc_by(ids.len() as u64);
            tracing::debug!(tasks = ids.len(), "enqueued again");
            if !full || started.elapsed() > REQUEUE_TIME_LIMIT {
                return Ok(());
            }
        }
    }

    async fn publish_gauges(&self) -> Result<(), JobError> {
        let now = self.store.now().await?;
        let backlog = self.store.backlog().await?;
        let depth = self.queue.depth().await;
        let undelivered = depth.as_ref().map_or(0, |depth| i64::try_from(depth.undelivered()).unwrap_or(i64::MAX));
        let due_not_enqueued = (backlog.due - undelivered).max(0);
        self.metrics.observe(&backlog, depth.as_ref().ok(), due_not_enqueued);
        depth?;
        let gauges = Gauges {
            at_ms: now.timestamp_millis(),
            unsettled: backlog.unsettled,
            due_not_enqueued,
            next_due_ms: backlog.next_due_ms.unwrap_or(-1),
            oldest_age_ms: (backlog.oldest_age_seconds * 1000.0) as i64,
            accepted_total: backlog.accepted_total,
            settled_total: backlog.settled_total,
            busy_worker_ms: backlog.busy_worker_ms,
        };
        Ok(self.queue.publish_gauges(&gauges).await?)
    }

    async fn reap(&self) -> Result<(), JobError> {
        self.queue.ensure_group().await?;
        let reaped = self.queue.reap(STALE_DELIVERY, SILENT_CONSUMER).await?;
        if reaped.entries > 0 || reaped.consumers > 0 {
            tracing::info!(
                entries = reaped.entries,
                consumers = reaped.consumers,
                "removed what dead workers left behind"
            );
        }
        Ok(())
    }
}

/// Up to when tasks can be lost. The stream is first in, first out: what was enqueued before the newest delivery was
/// delivered, and if nothing is undelivered, everything was; a long backlog alone loses nothing.
fn horizon(depth: &Depth, now: DateTime<Utc>, lost_after: TimeDelta) -> Horizon {
    let oldest_allowed = now - lost_after;
    if depth.undelivered() == 0 {
        return Horizon { lost_before: oldest_allowed, delivered_until: now };
    }
    // The same moment by PostgreSQL's clock.
    let delivered_until = now - TimeDelta::milliseconds(depth.redis_now_ms - depth.delivered_until_ms);
    Horizon {
        lost_before: oldest_allowed.min(delivered_until - CLOCK_MARGIN),
        delivered_until: delivered_until + CLOCK_MARGIN,
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    const LOST_AFTER: TimeDelta = TimeDelta::seconds(10);

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("valid")
    }

    /// Redis' clock is an hour behind; its newest delivery was added `ago` seconds ago.
    fn depth(length: u64, in_flight: u64, ago: i64) -> Depth {
        let redis_now_ms = at(-3600).timestamp_millis();
        Depth { length, in_flight, delivered_until_ms: redis_now_ms - ago * 1000, redis_now_ms }
    }

    #[test]
    fn every_schedule_parses() {
        for job in JOBS {
            croner::Cron::from_str(job.cron).expect(job.name);
        }
    }

    #[test]
    fn with_nothing_undelivered_all_that_is_old_enough_is_lost() {
        let expected = Horizon { lost_before: at(-10), delivered_until: at(0) };
        assert_eq!(horizon(&depth(0, 0, 99), at(0), LOST_AFTER), expected);
        assert_eq!(horizon(&depth(5, 5, 99), at(0), LOST_AFTER), expected);
    }

    #[test]
    fn a_long_backlog_loses_nothing_behind_its_newest_delivery() {
        let expected = Horizon { lost_before: at(-301), delivered_until: at(-299) };
        assert_eq!(horizon(&depth(1_000_000, 16, 300), at(0), LOST_AFTER), expected);
    }

    #[test]
    fn a_fresh_delivery_makes_nothing_lost_early() {
        assert_eq!(horizon(&depth(9, 1, 0), at(0), LOST_AFTER).lost_before, at(-10));
    }
}
