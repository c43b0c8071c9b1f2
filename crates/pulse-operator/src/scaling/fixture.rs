//! Test harness: one object, its queue and its workers, at a time that the test advances.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use pulse_queue::{Depth, Gauges};

use super::*;
use crate::crd::{AutoscalingPause, Behavior, Target};

pub(super) const POLL: i64 = 10;
const EPOCH_MS: i64 = 1_800_000_000_000;

/// Seconds after the start of the test.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millisecond(EPOCH_MS + seconds * 1000).expect("in range")
}

/// 0 to 20 workers with a backlog target of 100; everything else as the schema's defaults.
pub(super) fn policy() -> Policy {
    Policy {
        fixed: None,
        min: 0,
        max: 20,
        connection_limit: None,
        target: Target::default(),
        behavior: Behavior::default(),
        idle: SignedDuration::from_secs(300),
        paused: AutoscalingPause::None,
        concurrency: 16,
        poll: SignedDuration::from_secs(POLL),
    }
}

/// State of PostgreSQL and Redis. Figures are numbers of tasks unless stated otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Queue {
    pub(super) length: u64,
    pub(super) in_flight: u64,
    pub(super) accepted: i64,
    pub(super) settled: i64,
    pub(super) busy_ms: i64,
    /// Seconds until the next retry.
    pub(super) next_due: Option<i64>,
    /// Age of the oldest entry in seconds.
    pub(super) oldest_age: i64,
}

impl Queue {
    pub(super) fn of(length: u64) -> Self {
        Self { length, ..Self::default() }
    }

    /// A complete sample.
    pub(super) fn sample(self, seconds: i64) -> Sample {
        let now_ms = EPOCH_MS + seconds * 1000;
        let unsettled = i64::try_from(self.length).unwrap_or(i64::MAX) + i64::from(self.next_due.is_some());
        let gauges = Gauges {
            at_ms: now_ms,
            unsettled,
            due_not_enqueued: 0,
            next_due_ms: self.next_due.map_or(-1, |seconds| seconds * 1000),
            oldest_age_ms: self.oldest_age * 1000,
            accepted_total: self.accepted,
            settled_total: self.settled,
            busy_worker_ms: self.busy_ms,
        };
        Sample { gauges: Some(gauges), ..self.sample_without_gauges(seconds) }
    }

    /// A sample with the depth from Redis alone: the scheduler has published nothing.
    pub(super) fn sample_without_gauges(self, seconds: i64) -> Sample {
        let redis_now_ms = EPOCH_MS + seconds * 1000;
        let depth = Depth { length: self.length, in_flight: self.in_flight, redis_now_ms };
        Sample {
            at: at(seconds),
            depth: Some(depth),
            oldest_entry_ms: (self.length > 0).then_some(redis_now_ms - self.oldest_age * 1000),
            gauges: None,
            in_flight: BTreeMap::new(),
            error: None,
        }
    }
}

pub(super) fn failed_sample(seconds: i64) -> Sample {
    Sample::failed(at(seconds), SampleError::ConnectionFailed)
}

/// `count` workers, all ready.
pub(super) fn ready_workers(count: u32) -> Workers {
    let pod = |number| WorkerPod { name: format!("w-{number}"), ..ready_pod() };
    Workers { replicas: count, pods: (0..count).map(pod).collect(), ..Workers::default() }
}

fn ready_pod() -> WorkerPod {
    WorkerPod { name: String::new(), not_ready_since: None, crash_looping: false, deletion_cost: None }
}

/// One object. Each step is one poll, a decision, and its execution.
pub(super) struct Harness {
    pub(super) policy: Policy,
    pub(super) history: History,
    pub(super) workers: Workers,
    pub(super) seconds: i64,
}

impl Harness {
    /// Starts with `count` workers, and a history long enough for every stabilization window.
    pub(super) fn with(count: u32) -> Self {
        let mut harness = Self::just_started(count);
        harness.seconds = 100_000;
        harness
    }

    /// The operator has just started.
    pub(super) fn just_started(count: u32) -> Self {
        Self { policy: policy(), history: History::new(at(0), count), workers: ready_workers(count), seconds: 0 }
    }

    /// Replaces the workers by `replicas` ready ones at once.
    pub(super) fn scale(&mut self, replicas: u32) {
        self.workers = Workers { rolling_out: self.workers.rolling_out, ..ready_workers(replicas) };
    }

    pub(super) fn decide(&self) -> Decision {
        plan_workers(&self.policy, &self.history, &self.workers, at(self.seconds))
    }

    /// Observes a sample of the present time and decides, without applying the decision.
    pub(super) fn observe(&mut self, sample: Sample) -> Decision {
        self.history.observe(&sample, self.workers.ready(), &self.policy);
        self.decide()
    }

    /// Observes a sample of the present time, applies the decision, and advances to the next poll.
    pub(super) fn step(&mut self, sample: Sample) -> Decision {
        let decision = self.observe(sample);
        self.apply(&decision);
        self.seconds += POLL;
        decision
    }

    pub(super) fn apply(&mut self, decision: &Decision) {
        self.history.decided(at(self.seconds), self.workers.replicas, decision);
        if decision.replicas != self.workers.replicas {
            self.scale(decision.replicas);
        }
    }

    /// `count` steps with the same queue.
    pub(super) fn steps(&mut self, count: usize, queue: Queue) -> Decision {
        let mut last = self.step(queue.sample(self.seconds));
        for _ in 1..count {
            last = self.step(queue.sample(self.seconds));
        }
        last
    }
}

/// The number, the reason and the limit of a decision.
pub(super) fn outcome(decision: &Decision) -> (u32, ScalingReason, Option<Limit>) {
    (decision.replicas, decision.reason, decision.limited_by)
}
