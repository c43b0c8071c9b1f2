//! The periodic jobs and their schedules.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pulse_core::{SILENT_CONSUMER, STALE_DELIVERY};
use pulse_queue::GAUGES_PERIOD;
use pulse_store::Recovered;
use tokio::time::Instant;

use crate::archiving::{Archiving, MonthArchive};
use crate::context::{Context, JobError};
use crate::duty::Duty;
use crate::gauges::BacklogCount;
use crate::requeue::Requeue;
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

/// Maximum number of tasks in one statement of the recover job.
const RECOVER_BATCH: i64 = 5000;
/// Maximum number of idempotency keys that one statement deletes.
const EXPIRE_BATCH: i64 = 5000;
/// Maximum time of one run of the job that deletes idempotency keys. Runs are short and frequent, because the other jobs
/// wait for them: a fifth of the time deletes far more keys than clients can create.
const EXPIRE_TIME_LIMIT: Duration = Duration::from_secs(2);
/// Number of months for which partitions are created in advance.
const MONTHS_AHEAD: i32 = 12;

pub(crate) struct Jobs {
    context: Context,
    retention: Retention,
    archiving: Option<Archiving>,
    recover: Duty,
    requeue: Requeue,
    backlog: BacklogCount,
}

impl Jobs {
    pub(crate) fn new(context: Context, retention: Retention, archive: Option<Arc<dyn MonthArchive>>) -> Self {
        Self {
            context,
            retention,
            archiving: archive.map(Archiving::new),
            recover: Duty::default(),
            requeue: Requeue::default(),
            backlog: BacklogCount::default(),
        }
    }

    /// Runs a job. Logs a failure, which the next run tries again, and returns whether it succeeded.
    pub(crate) async fn run(&mut self, job: Job) -> bool {
        let Context { store, .. } = &self.context;
        let result = match job.kind {
            Kind::Recover => self.recover().await,
            Kind::Requeue => self.requeue.run(&self.context).await,
            Kind::Gauges => self.backlog.publish(&self.context).await,
            Kind::Reap => self.reap().await,
            Kind::Partitions => store.ensure_partitions(MONTHS_AHEAD).await.map(drop).map_err(JobError::from),
            Kind::Retain => self.retain().await,
            Kind::ExpireKeys => self.expire_keys().await,
            Kind::FoldThroughput => store.fold_throughput().await.map_err(JobError::from),
            Kind::ExpireThroughput => store.expire_throughput().await.map_err(JobError::from),
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

    async fn recover(&mut self) -> Result<(), JobError> {
        let Context { store, metrics, .. } = &self.context;
        let interrupted = store.end_interrupted_acts().await?;
        if interrupted > 0 {
            tracing::warn!(acts = interrupted, "the processes of acts on tasks are gone: see the audit log");
        }
        if !self.recover.may_run(1.0) {
            return Ok(());
        }
        let started = Instant::now();
        let Recovered { retried, dead } = store.recover(self.backlog.due_from(), RECOVER_BATCH).await?;
        if retried + dead < RECOVER_BATCH.unsigned_abs() {
            self.recover.record(started);
        }
        metrics.count_crashed(retried, dead);
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

    async fn retain(&self) -> Result<(), JobError> {
        if let Some(archiving) = &self.archiving {
            archiving.start(self.retention, &self.context.metrics).await;
        }
        retention::run(self.retention, self.archiving.is_some(), &self.context).await?;
        Ok(())
    }

    async fn expire_keys(&self) -> Result<(), JobError> {
        let started = Instant::now();
        while self.context.store.expire_idempotency_keys(EXPIRE_BATCH).await? >= EXPIRE_BATCH.unsigned_abs()
            && started.elapsed() < EXPIRE_TIME_LIMIT
        {}
        self.context.metrics.oldest_key_age_seconds.set(self.context.store.oldest_idempotency_key_age().await?);
        Ok(())
    }

    async fn reap(&self) -> Result<(), JobError> {
        let memory = self.context.queue.memory().await;
        self.context.metrics.record_memory(memory.as_ref().ok().copied().flatten());
        memory?;
        self.context.queue.ensure_groups().await?;
        let reaped = self.context.queue.reap(STALE_DELIVERY, SILENT_CONSUMER).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("valid")
    }

    #[test]
    fn job_runs_are_due_at_multiples_of_the_period() {
        let job = Job { name: "a", period: Duration::from_secs(10), kind: Kind::Reap };
        assert_eq!(job.runs_around(at(0)), (at(0), at(10)));
        assert_eq!(job.runs_around(at(9) + TimeDelta::nanoseconds(999_999_999)), (at(0), at(10)));
        assert_eq!(job.runs_around(at(10)), (at(10), at(20)));
    }
}
