//! The periodic jobs and their schedules.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pulse_core::{SILENT_CONSUMER, STALE_DELIVERY};
use pulse_queue::{Delivered, Depth, Entry, GAUGES_PERIOD, Gauges, Queue, QueueError, StreamDepth};
use pulse_store::{Backlog, LostBounds, QueueLengths, Recovered, Store, StoreError, TaskTotals};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::archiving::{Archiving, MonthArchive};
use crate::counted::Counted;
use crate::duty::Duty;
use crate::metrics::SchedulerMetrics;
use crate::retention::{self, Retention};

/// A job and its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    /// Time between two runs, which are due at multiples of it.
    pub(crate) period: Duration,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Recover,
    Requeue,
    Gauges,
    Reap,
    Partitions,
    Retain,
    ExpireKeys,
    FoldThroughput,
    ExpireThroughput,
}

/// All jobs. `requeue` runs each second, so that a retry is at most one second late.
pub(crate) const JOBS: [Job; 9] = [
    Job { name: "recover", period: Duration::from_secs(5), kind: Kind::Recover },
    Job { name: "requeue", period: Duration::from_secs(1), kind: Kind::Requeue },
    Job { name: "publish_gauges", period: GAUGES_PERIOD, kind: Kind::Gauges },
    Job { name: "reap_deliveries", period: Duration::from_secs(10), kind: Kind::Reap },
    Job { name: "create_partitions", period: Duration::from_hours(1), kind: Kind::Partitions },
    Job { name: "retain", period: Duration::from_secs(15), kind: Kind::Retain },
    Job { name: "expire_idempotency_keys", period: Duration::from_secs(10), kind: Kind::ExpireKeys },
    Job { name: "fold_throughput", period: Duration::from_secs(30), kind: Kind::FoldThroughput },
    Job { name: "expire_throughput", period: Duration::from_mins(10), kind: Kind::ExpireThroughput },
];

impl Job {
    /// The latest time, not after `now`, at which a run is due, and the one after it.
    pub(crate) fn runs_around(&self, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let period = i64::try_from(self.period.as_micros()).unwrap_or(i64::MAX);
        let since = TimeDelta::microseconds(now.timestamp_micros().rem_euclid(period));
        let due = DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now) - since;
        (due, due + TimeDelta::microseconds(period))
    }
}

/// Maximum number of tasks in one statement of the requeue job.
const REQUEUE_BATCH: i64 = 5000;
/// Maximum time of one run of the requeue job; the next run continues.
const REQUEUE_TIME_LIMIT: Duration = Duration::from_secs(2);
/// Maximum number of idempotency keys that one statement deletes.
const EXPIRE_BATCH: i64 = 5000;
/// Maximum time of one run of the job that deletes idempotency keys. Runs are short and frequent, because the other jobs
/// wait for them: a fifth of the time deletes far more keys than clients can create.
const EXPIRE_TIME_LIMIT: Duration = Duration::from_secs(2);
/// Time after which an enqueued task without a lease may count as lost.
const LOST_AFTER: TimeDelta = TimeDelta::seconds(10);
/// Maximum difference between the clocks of Redis and PostgreSQL after their offset was measured.
const CLOCK_MARGIN: TimeDelta = TimeDelta::seconds(1);
/// While users are deep, one of this many runs of the requeue job also reads the tasks after those that the bulk stream
/// has delivered: nearly all of them are its backlog, and reading it each second would cost in proportion to it.
const WHOLE_SEARCH: u32 = 10;
/// One of this many runs of the requeue job searches from the beginning, for tasks of transactions that committed more than
/// ten seconds after they began.
const FULL_SEARCH: u32 = 600;
/// One of this many counts of the backlog reads from the beginning.
const FULL_COUNT: u32 = 300;
/// Number of months for which partitions are created in advance.
const MONTHS_AHEAD: i32 = 12;

pub(crate) struct Jobs {
    store: Store,
    queue: Queue,
    metrics: SchedulerMetrics,
    retention: Retention,
    archiving: Option<Archiving>,
    recover_duty: Duty,
    search_duty: Duty,
    count_duty: Duty,
    counted: Mutex<Option<Counted>>,
    /// Number of counts of the backlog so far.
    counts: AtomicU32,
    /// No task without a lease was due before this time.
    searched_until: Mutex<DateTime<Utc>>,
    /// Number of runs of the requeue job so far.
    requeue_runs: AtomicU32,
}

#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
}

impl Jobs {
    pub(crate) fn new(
        store: Store,
        queue: Queue,
        metrics: SchedulerMetrics,
        (retention, archive): (Retention, Option<Arc<dyn MonthArchive>>),
    ) -> Self {
        Self {
            store,
            queue,
            metrics,
            retention,
            archiving: archive.map(Archiving::new),
            recover_duty: Duty::default(),
            search_duty: Duty::default(),
            count_duty: Duty::default(),
            counted: Mutex::default(),
            counts: AtomicU32::new(0),
            searched_until: Mutex::new(DateTime::UNIX_EPOCH),
            requeue_runs: AtomicU32::new(0),
        }
    }

    /// Runs a job. Logs a failure, which the next run tries again, and returns whether it succeeded.
    pub(crate) async fn run(&self, job: Job) -> bool {
        let result = match job.kind {
            Kind::Recover => self.recover().await,
            Kind::Requeue => self.requeue().await,
            Kind::Gauges => self.publish_gauges().await,
            Kind::Reap => self.reap().await,
            Kind::Partitions => self.store.ensure_partitions(MONTHS_AHEAD).await.map(drop).map_err(JobError::from),
            Kind::Retain => self.retain().await,
            Kind::ExpireKeys => self.expire_keys().await,
            Kind::FoldThroughput => self.store.fold_throughput().await.map_err(JobError::from),
            Kind::ExpireThroughput => self.store.expire_throughput().await.map_err(JobError::from),
        };
        let succeeded = result.is_ok();
        match result {
            Ok(()) => {}
            // The workers poll PostgreSQL while Redis is unavailable, and log it at a higher level.
            Err(JobError::Queue(error)) => {
                tracing::debug!(
                    job = job.name,
                    error = &error as &dyn std::error::Error,
                    "job failed: Redis is unavailable"
                )
            }
            Err(error) => tracing::warn!(job = job.name, error = &error as &dyn std::error::Error, "job failed"),
        }
        succeeded
    }

    async fn recover(&self) -> Result<(), JobError> {
        let interrupted = self.store.end_interrupted_acts().await?;
        if interrupted > 0 {
            tracing::warn!(acts = interrupted, "the processes of acts on tasks are gone: see the audit log");
        }
        if !self.recover_duty.may_run(1.0) {
            return Ok(());
        }
        let started = Instant::now();
        let Recovered { retried, dead } = self.store.recover(self.due_from().await, REQUEUE_BATCH).await?;
        if retried + dead < REQUEUE_BATCH.unsigned_abs() {
            self.recover_duty.record(started);
        }
        self.metrics.count_crashed(retried, dead);
        if retried > 0 {
            tracing::warn!(
                tasks = retried,
                "the leases of tasks expired: their workers died or could not reach PostgreSQL"
            );
        }
        if dead > 0 {
            tracing::error!(tasks = dead, "dead-lettered tasks whose workers died in every attempt");
        }
        Ok(())
    }

    async fn requeue(&self) -> Result<(), JobError> {
        let delivered = self.queue.delivered().await?;
        self.metrics.deep_users.set(i64::try_from(delivered.deep_users.len()).unwrap_or(i64::MAX));
        let runs = self.requeue_runs.fetch_add(1, Ordering::Relaxed);
        let mut bounds = lost_bounds(delivered, self.store.now().await?, runs.is_multiple_of(WHOLE_SEARCH));
        let started = Instant::now();
        let may_search = self.search_duty.may_run(1.0);
        if may_search {
            bounds.from = self.search_from(runs, bounds.until).await?;
        }
        let lost = may_search.then_some(&bounds);
        loop {
            let searched = Instant::now();
            let tasks = self.store.requeue(lost, REQUEUE_BATCH).await?;
            let full = tasks.len() as i64 >= REQUEUE_BATCH;
            if lost.is_some() && !full {
                self.search_duty.record(searched);
            }
            if tasks.is_empty() {
                return Ok(());
            }
            let ids: Vec<_> = tasks.iter().map(|task| task.task_id).collect();
            let entries: Vec<Entry> = tasks
                .into_iter()
                .map(|task| Entry {
                    task_id: task.task_id,
                    user_id: task.user_id,
                    bytes: task.bytes.unsigned_abs(),
                    traceparent: task.traceparent,
                })
                .collect();
            if let Err(error) = self.queue.publish(&entries).await {
                self.store.unmark_enqueued(&ids).await?;
                return Err(error.into());
            }
            self.metrics.requeued.inc_by(ids.len() as u64);
            tracing::debug!(tasks = ids.len(), "requeued tasks");
            if !full || started.elapsed() > REQUEUE_TIME_LIMIT {
                return Ok(());
            }
        }
    }

    /// The time from which unsettled tasks were due, at the last count.
    async fn due_from(&self) -> DateTime<Utc> {
        self.counted.lock().await.as_ref().map_or(DateTime::UNIX_EPOCH, |counted| counted.backlog.due_from)
    }

    /// Returns the time from which tasks may be lost: there is no older task without a lease.
    async fn search_from(&self, runs: u32, until: DateTime<Utc>) -> Result<DateTime<Utc>, JobError> {
        let mut searched = self.searched_until.lock().await;
        if runs.is_multiple_of(FULL_SEARCH) {
            *searched = DateTime::UNIX_EPOCH;
        }
        if *searched < until {
            *searched = self.store.oldest_waiting(*searched, until).await?.unwrap_or(until);
        }
        Ok(*searched)
    }

    async fn retain(&self) -> Result<(), JobError> {
        if let Some(archiving) = &self.archiving {
            archiving.start(self.retention, &self.metrics).await;
        }
        retention::run(self.retention, self.archiving.is_some(), &self.store, &self.metrics).await?;
        Ok(())
    }

    async fn expire_keys(&self) -> Result<(), JobError> {
        let started = Instant::now();
        while self.store.expire_idempotency_keys(EXPIRE_BATCH).await? >= EXPIRE_BATCH.unsigned_abs()
            && started.elapsed() < EXPIRE_TIME_LIMIT
        {}
        self.metrics.oldest_key_age_seconds.set(self.store.oldest_idempotency_key_age().await?);
        Ok(())
    }

    async fn publish_gauges(&self) -> Result<(), JobError> {
        let now = self.store.now().await?;
        let totals = self.store.task_totals().await?;
        let backlog = self.backlog(totals).await?;
        let depth = self.queue.depth().await;
        let undelivered = depth.as_ref().map_or(0, |depth| i64::try_from(depth.undelivered()).unwrap_or(i64::MAX));
        let due_not_enqueued = (backlog.due - undelivered).max(0);
        self.metrics.record(&backlog, depth.as_ref().ok(), due_not_enqueued);
        self.metrics.paused.set(self.store.find_pause().await?.is_some().into());
        let snapshot = self.store.oldest_snapshot().await?;
        self.metrics.oldest_snapshot.set(snapshot.map_or(0, |snapshot| snapshot.transactions));
        self.store.record_gauges(&backlog, depth.as_ref().ok().map(queue_lengths)).await?;
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
        Ok(self.queue.publish_gauges(&gauges).await?)
    }

    /// The backlog: counted, or if it was so large that counting has to rest, the last count and what has changed since.
    async fn backlog(&self, totals: TaskTotals) -> Result<Backlog, JobError> {
        let mut last = self.counted.lock().await;
        if let Some(counted) = &*last {
            let estimate = counted.now(totals);
            let share = estimate.unsettled as f64 / counted.backlog.unsettled.max(1) as f64;
            if !self.count_duty.may_run(share) {
                return Ok(estimate);
            }
        }
        let started = Instant::now();
        // From time to time from the beginning, for tasks of transactions that took long.
        let due_from = match &*last {
            Some(counted) if !self.counts.fetch_add(1, Ordering::Relaxed).is_multiple_of(FULL_COUNT) => {
                counted.backlog.due_from
            }
            _ => DateTime::UNIX_EPOCH,
        };
        let backlog = self.store.count_backlog(due_from).await?;
        self.count_duty.record(started);
        *last = Some(Counted { backlog: backlog.clone(), totals, at: started });
        Ok(backlog)
    }

    async fn reap(&self) -> Result<(), JobError> {
        self.queue.ensure_groups().await?;
        let reaped = self.queue.reap(STALE_DELIVERY, SILENT_CONSUMER).await?;
        if reaped.entries > 0 || reaped.consumers > 0 {
            tracing::info!(
                entries = reaped.entries,
                consumers = reaped.consumers,
                "removed stale deliveries and dead consumers"
            );
        }
        Ok(())
    }
}

fn queue_lengths(depth: &Depth) -> QueueLengths {
    let length = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    QueueLengths { undelivered: length(depth.undelivered()), in_flight: length(depth.in_flight) }
}

/// Computes which tasks count as lost. A stream is first in, first out: every task that was enqueued before its newest
/// delivery has been delivered, and if it has no undelivered entry, every task has. A long backlog alone is not a loss.
///
/// A deep user's task may be on either stream, so it is lost if neither can deliver it.
fn lost_bounds(delivered: Delivered, now: DateTime<Utc>, is_whole: bool) -> LostBounds {
    let Delivered { tasks, bulk, deep_users, redis_now_ms } = delivered;
    let (lost_before, tasks_until) = stream_bounds(&tasks, redis_now_ms, now);
    let (bulk_lost_before, bulk_until) = stream_bounds(&bulk, redis_now_ms, now);
    let delivered_until = match (deep_users.is_empty(), is_whole) {
        (true, _) => tasks_until,
        (false, true) => tasks_until.max(bulk_until),
        (false, false) => tasks_until.min(bulk_until),
    };
    LostBounds {
        lost_before,
        deep_lost_before: lost_before.min(bulk_lost_before),
        deep_users,
        from: DateTime::UNIX_EPOCH,
        // A task is enqueued when it is due, or later.
        until: delivered_until.min(lost_before),
    }
}

/// The time before which an enqueued task of a stream is lost, and the time before which all of its entries were
/// delivered.
fn stream_bounds(stream: &StreamDepth, redis_now_ms: i64, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
    let latest = now - LOST_AFTER;
    if stream.undelivered() == 0 {
        return (latest, now);
    }
    // The time of the newest delivered entry, by PostgreSQL's clock.
    let delivered_until = now - TimeDelta::milliseconds(redis_now_ms - stream.delivered_until_ms);
    (latest.min(delivered_until - CLOCK_MARGIN), delivered_until + CLOCK_MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("valid")
    }

    /// What was delivered, read while Redis' clock is an hour behind. A stream is its length, the number in flight, and
    /// for how long its newest delivered entry had been there, in seconds.
    fn delivered(tasks: (u64, u64, i64), bulk: (u64, u64, i64), deep_users: &[i64]) -> Delivered {
        let redis_now_ms = at(-3600).timestamp_millis();
        let stream =
            |(length, in_flight, ago)| StreamDepth { length, in_flight, delivered_until_ms: redis_now_ms - ago * 1000 };
        Delivered { tasks: stream(tasks), bulk: stream(bulk), deep_users: deep_users.into(), redis_now_ms }
    }

    /// Bounds of the tasks of users who are not deep.
    fn bounds(tasks: (u64, u64, i64)) -> (DateTime<Utc>, DateTime<Utc>) {
        let bounds = lost_bounds(delivered(tasks, (0, 0, 0), &[]), at(0), true);
        (bounds.lost_before, bounds.until)
    }

    #[test]
    fn job_runs_are_due_at_multiples_of_the_period() {
        let job = Job { name: "a", period: Duration::from_secs(10), kind: Kind::Reap };
        assert_eq!(job.runs_around(at(0)), (at(0), at(10)));
        assert_eq!(job.runs_around(at(9) + TimeDelta::nanoseconds(999_999_999)), (at(0), at(10)));
        assert_eq!(job.runs_around(at(10)), (at(10), at(20)));
    }

    #[test]
    fn drained_stream_makes_every_old_task_lost() {
        assert_eq!(bounds((0, 0, 99)), (at(-10), at(-10)));
        assert_eq!(bounds((5, 5, 99)), (at(-10), at(-10)));
    }

    #[test]
    fn long_backlog_makes_no_undelivered_task_lost() {
        assert_eq!(bounds((1_000_000, 16, 300)), (at(-301), at(-301)));
    }

    #[test]
    fn recent_delivery_does_not_shorten_lost_after() {
        assert_eq!(bounds((9, 1, 0)).0, at(-10));
    }

    #[test]
    fn backlog_of_deep_users_delays_only_the_search_for_their_lost_tasks() {
        let delivered = delivered((5, 5, 1), (300_000, 16, 600), &[7]);
        let bounds = lost_bounds(delivered.clone(), at(0), false);
        assert_eq!((bounds.lost_before, bounds.deep_lost_before), (at(-10), at(-601)));
        assert_eq!((bounds.deep_users, bounds.until), (vec![7], at(-599)), "the backlog is not read");
        assert_eq!(lost_bounds(delivered, at(0), true).until, at(-10));
    }

    #[test]
    fn task_of_a_deep_user_is_lost_only_if_neither_stream_can_deliver_it() {
        let bounds = lost_bounds(delivered((9000, 16, 300), (5, 5, 1), &[7]), at(0), false);
        assert_eq!((bounds.lost_before, bounds.deep_lost_before), (at(-301), at(-301)));
    }
}
