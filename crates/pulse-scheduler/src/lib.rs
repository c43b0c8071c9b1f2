//! The scheduler: what has to be done once, however many of us run.
//!
//! Any number may run; one leads, by a lease in PostgreSQL whose term grows with every change. Each tick of each job is
//! fired once: firing needs the current term, so a leader that was paused fires nothing when it wakes. All jobs may be
//! repeated or skipped without harm; missed ticks are not made up for, only the newest one is fired.

mod jobs;
mod metrics;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;
use pulse_queue::Queue;
use pulse_store::{LeaderLease, Store, StoreError};
use tokio_util::sync::CancellationToken;

pub use metrics::{SchedulerMetrics, TaskCounters};

use crate::jobs::{JOBS, Job, Jobs};

/// What the lease is for.
const LEASE: &str = "scheduler";
/// A scheduler that has not looked at its schedules for this long is not live.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// How a scheduler works.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// Names the holder of the lease: unique to this start of the process.
    pub name: String,
    /// How long the lease lasts without a renewal.
    pub lease: Duration,
    /// How long a task may be enqueued before it can count as lost.
    pub lost_after: Duration,
}

/// What the probes ask a scheduler. Cheap to clone.
#[derive(Clone)]
pub struct SchedulerHealth {
    start: Instant,
    last_run_ms: Arc<AtomicU64>,
}

impl SchedulerHealth {
    fn turned(&self) {
        self.last_run_ms.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Why the scheduler is not live, if it is not.
    pub fn problem(&self) -> Option<String> {
        let silent =
            self.start.elapsed().saturating_sub(Duration::from_millis(self.last_run_ms.load(Ordering::Relaxed)));
        (silent > STALLED_AFTER).then(|| format!("has not looked at its schedules for {} s", silent.as_secs()))
    }
}

/// A scheduler, ready to run.
pub struct Scheduler {
    config: SchedulerConfig,
    store: Store,
    jobs: Jobs,
    metrics: SchedulerMetrics,
    health: SchedulerHealth,
}

/// The schedules while we lead.
struct Leader {
    lease: LeaderLease,
    renewed: Instant,
    timetable: Vec<Timed>,
    /// PostgreSQL's clock and ours, read together.
    clock: (DateTime<Utc>, Instant),
}

struct Timed {
    job: Job,
    cron: Cron,
    last_tick: DateTime<Utc>,
}

impl Leader {
    /// PostgreSQL's time, without asking.
    fn now(&self) -> DateTime<Utc> {
        let (read, at) = self.clock;
        read + TimeDelta::from_std(at.elapsed()).unwrap_or_default()
    }
}

impl Scheduler {
    /// Puts a scheduler together.
    pub fn new(config: SchedulerConfig, store: Store, queue: Queue, metrics: SchedulerMetrics) -> Self {
        let health = SchedulerHealth { start: Instant::now(), last_run_ms: Arc::default() };
        let jobs = Jobs::new(store.clone(), queue, config.lost_after, metrics.clone());
        Self { config, store, jobs, metrics, health }
    }

    /// For the probes.
    pub fn health(&self) -> SchedulerHealth {
        self.health.clone()
    }

    /// Runs until `shutdown`, then gives the lease up.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut leader: Option<Leader> = None;
        while !shutdown.is_cancelled() {
            self.health.turned();
            let pause = match self.run_once(&mut leader).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot schedule");
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
            && let Err(error) = self.store.resign(&lease).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot resign: the lease ends by itself");
        }
    }

    /// Leads if possible, and fires what is due; returns how long nothing will be.
    async fn run_once(&self, leader: &mut Option<Leader>) -> Result<Duration, StoreError> {
        let mut next = Duration::from_secs(1);
        for place in 0..JOBS.len() {
            // Before each job: the ones before it may have taken longer than the lease lasts.
            self.renew(leader).await?;
            let Some(current) = leader else { return Ok(self.config.lease / 4) };
            let now = current.now();
            let Some(Timed { job, cron, last_tick }) = current.timetable.get_mut(place) else { continue };
            let tick = cron.find_previous_occurrence(&now, true).unwrap_or(*last_tick);
            if tick > *last_tick {
                *last_tick = tick;
                if !self.store.fire(job.name, tick, &current.lease).await? {
                    // Another leader fired it, or our lease ended: find out in the next run_once.
                    *leader = None;
                    return Ok(Duration::ZERO);
                }
                self.jobs.run(*job).await;
            } else if let Ok(following) = cron.find_next_occurrence(&now, false) {
                next = next.min((following - now).to_std().unwrap_or_default());
            }
        }
        Ok(next)
    }

    /// Takes the lead, or renews it when a third of the lease is over; without it, `leader` is none.
    async fn renew(&self, leader: &mut Option<Leader>) -> Result<(), StoreError> {
        if leader.as_ref().is_some_and(|leader| leader.renewed.elapsed() <= self.config.lease / 3) {
            return Ok(());
        }
        let renewed = Instant::now();
        let Some((lease, now)) = self.store.lead(LEASE, &self.config.name, self.config.lease).await? else {
            if leader.take().is_some() {
                tracing::warn!("lost the lead");
            }
            return Ok(());
        };
        match leader {
            Some(leader) if leader.lease == lease && leader.timetable.iter().all(|timed| timed.last_tick <= now) => {
                leader.renewed = renewed;
                leader.clock = (now, Instant::now());
            }
            _ => {
                tracing::info!(term = lease.term, "leading");
                *leader = Some(self.take_over(lease, renewed).await?);
            }
        }
        Ok(())
    }

    async fn take_over(&self, lease: LeaderLease, renewed: Instant) -> Result<Leader, StoreError> {
        self.store.register_schedules(&JOBS.map(|job| job.name)).await?;
        let (schedules, now) = self.store.schedules().await?;
        let clock = (now, Instant::now());
        let timetable = JOBS
            .iter()
            .filter_map(|job| {
                let last_tick = schedules.iter().find(|schedule| schedule.name == job.name)?.last_tick.min(now);
                let cron = Cron::from_str(job.cron).expect("the schedules are tested to parse");
                Some(Timed { job: *job, cron, last_tick })
            })
            .collect();
        Ok(Leader { lease, renewed, timetable, clock })
    }
}
