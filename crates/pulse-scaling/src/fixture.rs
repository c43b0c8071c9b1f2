//! Test harness: one object, its queue and its workers, at a time that the test advances.

use jiff::{SignedDuration, Timestamp};

use crate::*;

pub(crate) const POLL: i64 = 10;
const EPOCH_MS: i64 = 1_800_000_000_000;

/// Seconds after the start of the test.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millisecond(EPOCH_MS + seconds * 1000).expect("in range")
}

/// 0 to 20 workers, and 300 s of idle time.
pub(crate) fn policy() -> Policy {
    Policy { min: 0, max: 20, idle: SignedDuration::from_secs(300), ..Policy::default() }
}

/// State of PostgreSQL and Redis. Figures are numbers of tasks unless stated otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Queue {
    pub(crate) waiting: u64,
    pub(crate) in_flight: u64,
    pub(crate) accepted: i64,
    pub(crate) attempts: i64,
    pub(crate) retried: i64,
    pub(crate) attempt_ms: i64,
    /// Seconds until the next retry.
    pub(crate) next_due: Option<i64>,
    /// Age of the oldest waiting task in seconds.
    pub(crate) oldest_age: u64,
}

impl Queue {
    pub(crate) fn of(waiting: u64) -> Self {
        Self { waiting, ..Self::default() }
    }

    /// A complete sample.
    pub(crate) fn sample(self, seconds: i64) -> Sample {
        let unsettled = i64::try_from(self.waiting + self.in_flight).unwrap_or(i64::MAX);
        let gauges = Gauges {
            at_ms: EPOCH_MS + seconds * 1000,
            unsettled: unsettled + i64::from(self.next_due.is_some()),
            due_not_enqueued: 0,
            oldest_due_ms: -1,
            next_due_ms: self.next_due.map_or(-1, |seconds| seconds * 1000),
            accepted_total: self.accepted,
            attempts_total: self.attempts,
            retried_total: self.retried,
            attempt_ms_total: self.attempt_ms,
        };
        Sample { gauges: Some(gauges), ..self.sample_without_gauges(seconds) }
    }

    /// A sample with the depth from Redis alone: the scheduler has published nothing.
    pub(crate) fn sample_without_gauges(self, seconds: i64) -> Sample {
        let depth = Depth {
            undelivered: self.waiting,
            in_flight: self.in_flight,
            oldest_undelivered_ms: (self.waiting > 0).then_some(self.oldest_age * 1000),
            redis_now_ms: EPOCH_MS + seconds * 1000,
        };
        Sample { at: at(seconds), depth: Some(depth), gauges: None }
    }
}

/// Nothing could be read.
pub(crate) fn failed_sample(seconds: i64) -> Sample {
    Sample { at: at(seconds), depth: None, gauges: None }
}

/// `count` workers, all ready.
pub(crate) fn ready_workers(count: u32) -> Workers {
    let pods = (0..count).map(|_| WorkerPod::Ready { start_seconds: Some(3.0) }).collect();
    Workers { replicas: count, pods, ..Workers::default() }
}

/// One object. Each step is one poll, a decision, and its execution.
#[derive(Debug)]
pub(crate) struct Harness {
    pub(crate) policy: Policy,
    pub(crate) memory: Memory,
    pub(crate) workers: Workers,
    pub(crate) sample: Option<Sample>,
    pub(crate) seconds: i64,
}

impl Harness {
    /// Starts with `count` workers, and a history long enough for every stabilization window.
    pub(crate) fn with(count: u32) -> Self {
        let mut harness = Self::just_started(count);
        harness.decide();
        harness.seconds = 100_000;
        harness
    }

    /// The operator has just started.
    pub(crate) fn just_started(count: u32) -> Self {
        Self { policy: policy(), memory: Memory::default(), workers: ready_workers(count), sample: None, seconds: 0 }
    }

    /// Knows the mean time of an attempt and the rate of arrivals.
    pub(crate) fn knowing(mut self, attempt_seconds: f64, arrivals_per_second: f64) -> Self {
        let known = Learned {
            attempt_seconds: Some(attempt_seconds),
            overhead_seconds: None,
            arrivals_per_second: Some(arrivals_per_second),
            start_seconds: Some(3.0),
        };
        let seconds = std::mem::take(&mut self.seconds);
        self.memory = Memory::restored(known);
        self.decide();
        self.seconds = seconds;
        self
    }

    /// Disables stabilization and scaling policies, so that only the recommendation and the bounds count.
    pub(crate) fn unlimited(mut self) -> Self {
        let rules = ScalingRules { stabilization_window_seconds: 0, percent: 1000, workers: 1000, period_seconds: 1 };
        (self.policy.behavior.scale_up, self.policy.behavior.scale_down) = (rules.clone(), rules);
        self
    }

    /// Decides at the present time, and keeps the memory.
    pub(crate) fn decide(&mut self) -> Decision {
        let observed = Observed { sample: self.sample.clone(), workers: self.workers.clone() };
        let (decision, memory) = decide(&self.policy, std::mem::take(&mut self.memory), &observed, at(self.seconds));
        self.memory = memory;
        decision
    }

    /// Observes a sample of the present time and decides, without applying the decision.
    pub(crate) fn observe(&mut self, sample: Sample) -> Decision {
        self.sample = Some(sample);
        self.decide()
    }

    /// Observes a sample of the present time, applies the decision, and advances to the next poll.
    pub(crate) fn step(&mut self, sample: Sample) -> Decision {
        let decision = self.observe(sample);
        self.apply(&decision);
        self.seconds += POLL;
        decision
    }

    pub(crate) fn apply(&mut self, decision: &Decision) {
        if decision.replicas != self.workers.replicas {
            let Workers { rolling_out, migrating, .. } = self.workers;
            self.workers = Workers { rolling_out, migrating, ..ready_workers(decision.replicas) };
        }
    }

    /// `count` steps with the same queue.
    pub(crate) fn steps(&mut self, count: usize, queue: Queue) -> Decision {
        let mut last = self.step(queue.sample(self.seconds));
        for _ in 1..count {
            last = self.step(queue.sample(self.seconds));
        }
        last
    }

    /// The operator restarts, and reads from the status what it kept there.
    pub(crate) fn restart(&mut self) {
        self.memory = Memory::restored(self.memory.learned());
        self.sample = None;
    }
}

/// The number, the reason and the limit of a decision.
pub(crate) fn outcome(decision: &Decision) -> (u32, ScalingReason, Option<Limit>) {
    (decision.replicas, decision.reason, decision.limited_by)
}
