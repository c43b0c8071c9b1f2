//! What the operator found: a sample of the queue, and the workers.

use jiff::{SignedDuration, Timestamp};

/// Maximum age of the gauges from PostgreSQL. Older ones make the backlog *unknown*, not zero.
pub const GAUGES_MAX_AGE: SignedDuration = SignedDuration::from_secs(10);
/// Time that a pod may take to become ready. Until then it counts as starting, later as failing.
pub const STARTUP_BUDGET: SignedDuration = SignedDuration::from_secs(120);

/// One sample of the queue of an instance. An absent value is unknown, never zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Time of the sample, by the operator's clock.
    pub at: Timestamp,
    /// Depth of the queue, from Redis.
    pub depth: Option<Depth>,
    /// The newest gauges that the scheduler published from PostgreSQL, whatever their age.
    pub gauges: Option<Gauges>,
}

/// Depth of the queue, or of one of its streams, as Redis reports it. Figures are numbers of tasks unless stated
/// otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Not delivered to a worker yet.
    pub undelivered: u64,
    /// Delivered and not acknowledged.
    pub in_flight: u64,
    /// Age of the oldest undelivered entry, in milliseconds; `None` if there is none. A delivered entry has no age, as
    /// no number of workers makes a running task end sooner.
    pub oldest_undelivered_ms: Option<u64>,
    /// Time of the reading by Redis' clock, in milliseconds since 1970.
    pub redis_now_ms: i64,
}

impl std::ops::Add for Depth {
    type Output = Self;

    /// The depth of two streams together.
    fn add(self, other: Self) -> Self {
        Self {
            undelivered: self.undelivered.saturating_add(other.undelivered),
            in_flight: self.in_flight.saturating_add(other.in_flight),
            oldest_undelivered_ms: self.oldest_undelivered_ms.max(other.oldest_undelivered_ms),
            redis_now_ms: self.redis_now_ms.max(other.redis_now_ms),
        }
    }
}

/// Figures from PostgreSQL, published by the scheduler. Totals only grow; a smaller one is another database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gauges {
    /// Time of the reading, in milliseconds since 1970 by PostgreSQL's clock.
    pub at_ms: i64,
    /// Number of unsettled tasks.
    pub unsettled: i64,
    /// Number of tasks that are due and not in a stream.
    pub due_not_enqueued: i64,
    /// Age of the oldest of these since it became due, in milliseconds; −1 if there is none.
    pub oldest_due_ms: i64,
    /// Milliseconds until the next retry is due; −1 if no retry waits.
    pub next_due_ms: i64,
    /// Total number of tasks accepted.
    pub accepted_total: i64,
    /// Total number of attempts that ended, with or without a result.
    pub attempts_total: i64,
    /// Total number of attempts that ended in a retry.
    pub retried_total: i64,
    /// Total time of attempts, in milliseconds. The time of a running attempt counts as it passes, so that a long one
    /// is known before it ends.
    pub attempt_ms_total: i64,
}

/// A worker pod that is not terminating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WorkerPod {
    /// It claims tasks.
    Ready {
        /// Time from its creation until it was ready, in seconds; `None` if it was not ready in between.
        start_seconds: Option<f64>,
    },
    /// It starts, or its node is lost.
    NotReady {
        /// Time when it became not ready, or when it was created.
        since: Timestamp,
    },
    /// A container is in `CrashLoopBackOff`. It may be ready for a moment and still does not count as ready.
    CrashLooping,
}

/// The observed workers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Workers {
    /// `spec.replicas` of the Deployment.
    pub replicas: u32,
    /// The pods that are not terminating.
    pub pods: Vec<WorkerPod>,
    /// A rollout replaces pods.
    pub rolling_out: bool,
    /// A migration runs or is pending.
    pub migrating: bool,
}

/// All that a decision is made from, besides the rules and the past.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// The newest sample; `None` before the first one. The same one may be observed many times.
    pub sample: Option<Sample>,
    /// The workers.
    pub workers: Workers,
}

impl Workers {
    /// Number of ready pods.
    pub fn ready(&self) -> u32 {
        count(self.pods.iter().filter(|pod| matches!(pod, WorkerPod::Ready { .. })))
    }

    /// Number of pods that are starting: not ready for less than [`STARTUP_BUDGET`], and not crash looping.
    pub fn starting(&self, now: Timestamp) -> u32 {
        let is_starting = |pod: &&WorkerPod| matches!(pod, WorkerPod::NotReady { since } if now.duration_since(*since) < STARTUP_BUDGET);
        count(self.pods.iter().filter(is_starting))
    }

    /// Whether at least half of the pods fail to start, so that more of them would fail as well.
    pub fn failing(&self, now: Timestamp) -> bool {
        let pods = count(self.pods.iter());
        let failing = pods - self.starting(now) - self.ready();
        failing > 0 && failing * 2 >= pods
    }

    /// The median time that the ready pods took to start, in seconds.
    pub(crate) fn start_seconds(&self) -> Option<f64> {
        let time = |pod: &WorkerPod| match pod {
            WorkerPod::Ready { start_seconds } => *start_seconds,
            _ => None,
        };
        let mut times: Vec<f64> = self.pods.iter().filter_map(time).collect();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    }
}

fn count<'a>(pods: impl Iterator<Item = &'a WorkerPod>) -> u32 {
    u32::try_from(pods.count()).unwrap_or(u32::MAX)
}
