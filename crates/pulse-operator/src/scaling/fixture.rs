//! A scene for tests: one object, its queue and its workers, at a time that the test moves.

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

/// 0 to 20 workers, 100 tasks each, everything else as in the schema.
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

/// What PostgreSQL and Redis hold. Figures count tasks.
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

    /// All that there is to see.
    pub(super) fn whole(self, seconds: i64) -> Sample {
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
        Sample { gauges: Some(gauges), ..self.part(seconds) }
    }

    /// What Redis alone knows: the scheduler has published nothing.
    pub(super) fn part(self, seconds: i64) -> Sample {
        let redis_now_ms = EPOCH_MS + seconds * 1000;
        let depth =
            Depth { length: self.length, in_flight: self.in_flight, delivered_until_ms: redis_now_ms, redis_now_ms };
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

pub(super) fn failure(seconds: i64) -> Sample {
    Sample::failed(at(seconds), SampleError::TimedOut)
}

/// So many workers, all ready.
pub(super) fn ready(count: u32) -> Workers {
    let pod = |number| WorkerPod { name: format!("w-{number}"), ..pod_ready() };
    Workers { replicas: count, pods: (0..count).map(pod).collect(), ..Workers::default() }
}

fn pod_ready() -> WorkerPod {
    WorkerPod { name: String::new(), not_ready_since: None, crash_looping: false, deletion_cost: None }
}

/// One object; each step is one poll, a decision, and its execution.
pub(super) struct Scene {
    pub(super) policy: Policy,
    pub(super) history: History,
    pub(super) workers: Workers,
    pub(super) seconds: i64,
}

impl Scene {
    /// Starts with so many workers, long enough ago to be sure of the past.
    pub(super) fn with(count: u32) -> Self {
        let mut scene = Self::just_started(count);
        scene.seconds = 100_000;
        scene
    }

    /// The operator has just started.
    pub(super) fn just_started(count: u32) -> Self {
        Self { policy: policy(), history: History::new(at(0), count), workers: ready(count), seconds: 0 }
    }

    /// The workers are as many as a decision says, at once.
    pub(super) fn scale(&mut self, replicas: u32) {
        self.workers = Workers { rolling_out: self.workers.rolling_out, ..ready(replicas) };
    }

    pub(super) fn decide(&self) -> Decision {
        plan_workers(&self.policy, &self.history, &self.workers, at(self.seconds))
    }

    /// Takes in a sample of the present time and decides, but does nothing.
    pub(super) fn see(&mut self, sample: Sample) -> Decision {
        self.history.observe(&sample, self.workers.ready(), &self.policy);
        self.decide()
    }

    /// Takes in a sample of the present time, does what is decided, and waits for the next poll.
    pub(super) fn step(&mut self, sample: Sample) -> Decision {
        let decision = self.see(sample);
        self.act(&decision);
        self.seconds += POLL;
        decision
    }

    pub(super) fn act(&mut self, decision: &Decision) {
        self.history.decided(at(self.seconds), self.workers.replicas, decision);
        if decision.replicas != self.workers.replicas {
            self.scale(decision.replicas);
        }
    }

    /// So many steps in which the queue looks the same.
    pub(super) fn steps(&mut self, count: usize, queue: Queue) -> Decision {
        let mut last = self.step(queue.whole(self.seconds));
        for _ in 1..count {
            last = self.step(queue.whole(self.seconds));
        }
        last
    }
}

/// The number, the reason and the limit of a decision.
pub(super) fn gist(decision: &Decision) -> (u32, ScalingReason, Option<Limit>) {
    (decision.replicas, decision.reason, decision.limited_by)
}
