//! The scheduler: runs the periodic jobs, on one leader.
//!
//! Any number of schedulers may run. Leader election uses a lease in PostgreSQL, whose term grows with every change of
//! leader. A job runs once for each time at which it is due: its start needs the current term, so a leader that was
//! paused while its lease expired starts nothing. All jobs may be repeated or skipped without harm. Of several missed
//! runs, only the latest is made.

mod archiving;
mod context;
mod counted;
mod duty;
mod gauges;
mod jobs;
mod lost;
mod metrics;
mod requeue;
mod retention;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use pulse_queue::Queue;
use pulse_store::{LeaderLease, Store, StoreError};
use tokio_util::sync::CancellationToken;

pub use archiving::{CopiedMonth, MonthArchive};
pub use metrics::SchedulerMetrics;
pub use retention::Retention;

use crate::context::Context;
use crate::jobs::{JOBS, Job, Jobs};

/// Name of the leader lease.
const LEASE: &str = "scheduler";
/// Time after which the leader lease expires without a renewal.
const LEASE_TTL: Duration = Duration::from_secs(10);
/// Time without a check of the jobs after which a scheduler is not live.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Liveness of a scheduler, for the probes. Cheap to clone.
#[derive(Clone)]
pub struct SchedulerHealth {
    start: Instant,
    last_run_ms: Arc<AtomicU64>,
}

impl SchedulerHealth {
    fn record_run(&self) {
        self.last_run_ms.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The reason why the scheduler is not live, or `None` if it is live.
    pub fn problem(&self) -> Option<String> {
        let silent =
            self.start.elapsed().saturating_sub(Duration::from_millis(self.last_run_ms.load(Ordering::Relaxed)));
        (silent > STALLED_AFTER).then(|| format!("has not checked its jobs for {} s", silent.as_secs()))
    }
}

/// A scheduler that has not been started.
pub struct Scheduler {
    name: String,
    store: Store,
    jobs: Jobs,
    metrics: SchedulerMetrics,
    health: SchedulerHealth,
}

/// State of a scheduler while it is the leader.
struct Leader {
    lease: LeaderLease,
    renewed: Instant,
    schedule: Vec<ScheduledJob>,
    /// PostgreSQL's clock and the local clock, read together.
    clock: (DateTime<Utc>, Instant),
}

struct ScheduledJob {
    job: Job,
    last_run_at: DateTime<Utc>,
}

impl Leader {
    /// PostgreSQL's time, extrapolated from the last reading.
    fn now(&self) -> DateTime<Utc> {
        let (read, at) = self.clock;
        read + TimeDelta::from_std(at.elapsed()).unwrap_or_default()
    }
}

impl Scheduler {
    /// Creates a scheduler; [`Scheduler::run`] starts it. `name` is the holder of the lease, and must be unique to this
    /// start of the process. Months are dropped only after they were copied to `archive`, if there is one.
    pub fn new(
        name: String,
        store: Store,
        queue: Queue,
        metrics: SchedulerMetrics,
        retention: Retention,
        archive: Option<Arc<dyn MonthArchive>>,
    ) -> Self {
        for job in JOBS {
            metrics.create_job(job.name);
        }
        let health = SchedulerHealth { start: Instant::now(), last_run_ms: Arc::default() };
        let context = Context { store: store.clone(), queue, metrics: metrics.clone() };
        let jobs = Jobs::new(context, retention, archive);
        Self { name, store, jobs, metrics, health }
    }

    /// A handle for the probes.
    pub fn health(&self) -> SchedulerHealth {
        self.health.clone()
    }

    /// Runs until `shutdown` is cancelled, then releases the lease.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut leader: Option<Leader> = None;
        while !shutdown.is_cancelled() {
            self.health.record_run();
            let pause = match self.run_once(&mut leader).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot run the jobs: trying again in 1 s"
                    );
                    leader = None;
                    Duration::from_secs(1)
                }
            };
            self.metrics.leader.set(i64::from(leader.is_some()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => {}
            }
        }
        if let Some(Leader { lease, .. }) = leader
            && let Err(error) = self.store.release_lease(&lease).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot release the lease: it expires by itself");
        }
    }

    /// Acquires or renews the lease, and runs the jobs that are due. Returns the time until the next run.
    async fn run_once(&mut self, leader: &mut Option<Leader>) -> Result<Duration, StoreError> {
        let mut next = Duration::from_secs(1);
        for index in 0..JOBS.len() {
            // Before each job, because the jobs before it may have taken longer than the lease.
            self.renew(leader).await?;
            let Some(current) = leader else { return Ok(LEASE_TTL / 4) };
            let now = current.now();
            let Some(ScheduledJob { job, last_run_at }) = current.schedule.get_mut(index) else { continue };
            let (due, following) = job.runs_around(now);
            if due <= *last_run_at {
                next = next.min((following - now).to_std().unwrap_or_default());
                continue;
            }
            *last_run_at = due;
            if !self.store.start_job(job.name, due, following, &current.lease).await? {
                // Another leader ran it, or this lease expired: the next `run_once` finds out.
                *leader = None;
                return Ok(Duration::ZERO);
            }
            let started = Instant::now();
            let succeeded = self.jobs.run(*job).await;
            self.metrics.count_run(job.name, succeeded);
            self.store.finish_job(job.name, due, started.elapsed(), succeeded).await?;
        }
        Ok(next)
    }

    /// Acquires the lease, or renews it after a third of its duration. Sets `leader` to `None` if another scheduler
    /// leads.
    async fn renew(&self, leader: &mut Option<Leader>) -> Result<(), StoreError> {
        if leader.as_ref().is_some_and(|leader| leader.renewed.elapsed() <= LEASE_TTL / 3) {
            return Ok(());
        }
        let renewed = Instant::now();
        let Some((lease, now)) = self.store.acquire_lease(LEASE, &self.name, LEASE_TTL).await? else {
            if leader.take().is_some() {
                tracing::warn!("lost leadership");
            }
            return Ok(());
        };
        match leader {
            Some(leader) if leader.lease == lease && leader.schedule.iter().all(|job| job.last_run_at <= now) => {
                leader.renewed = renewed;
                leader.clock = (now, Instant::now());
            }
            _ => {
                tracing::info!(term = lease.term, "became leader");
                *leader = Some(self.start_leading(lease, renewed).await?);
            }
        }
        Ok(())
    }

    async fn start_leading(&self, lease: LeaderLease, renewed: Instant) -> Result<Leader, StoreError> {
        self.store.register_jobs(&JOBS.map(|job| job.name)).await?;
        let (known, now) = self.store.jobs().await?;
        let clock = (now, Instant::now());
        let schedule = JOBS
            .iter()
            .filter_map(|job| {
                let last_run_at = known.iter().find(|known| known.name == job.name)?.last_run_at.min(now);
                Some(ScheduledJob { job: *job, last_run_at })
            })
            .collect();
        Ok(Leader { lease, renewed, schedule, clock })
    }
}
