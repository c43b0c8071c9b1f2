//! Runs the rules of this crate, with samples as the operator reads them.

use jiff::{SignedDuration, Timestamp};

use super::chance::Chance;
use super::plant::Plant;
use super::run::Autoscaler;
use crate::{Depth, Gauges, Memory, Observed, Policy, Sample, Target, WorkerPod, Workers, decide};

/// Variation of the time between two samples.
const JITTER: f64 = 0.1;
const EPOCH_MS: i64 = 1_800_000_000_000;

/// The rules of this crate.
#[derive(Debug, Clone)]
pub struct Rules {
    policy: Policy,
    memory: Memory,
    chance: Chance,
    next_poll: f64,
    next_wake: Option<Timestamp>,
}

impl Rules {
    /// With the default policy, and the target of the trace as the only setting.
    pub fn new(plant: &Plant<'_>, seed: u64) -> Self {
        let trace = plant.trace;
        let target = Target {
            drain_seconds: trace.target_age_s,
            max_age_seconds: Some(trace.target_age_s),
            ..Target::default()
        };
        let policy = Policy { min: trace.min, max: trace.max, target, concurrency: trace.slots, ..Policy::default() };
        let mut chance = Chance::new(seed ^ 0x5eed);
        let next_poll = chance.between(0.0, policy.poll.as_secs_f64());
        Self { policy, memory: Memory::default(), chance, next_poll, next_wake: None }
    }

    /// The operator restarts, and reads what the status kept.
    pub fn restart(&mut self) {
        self.memory = Memory::restored(self.memory.learned());
    }
}

impl Autoscaler for Rules {
    fn decide(&mut self, plant: &Plant<'_>, current: u32) -> u32 {
        let second = f64::from(plant.now());
        let now = at(plant.now());
        let is_turn = second >= self.next_poll;
        if !is_turn && self.next_wake.is_none_or(|wake| now < wake) {
            return current;
        }
        if is_turn {
            self.next_poll = second + self.policy.poll.as_secs_f64() * self.chance.between(1.0 - JITTER, 1.0 + JITTER);
        }
        let memory = std::mem::take(&mut self.memory);
        let (decision, memory) = decide(&self.policy, memory, &observe(plant), now);
        self.memory = memory;
        self.next_wake = decision.next_wake;
        decision.replicas
    }
}

fn at(second: u32) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_millis(EPOCH_MS + i64::from(second) * 1000)
}

fn observe(plant: &Plant<'_>) -> Observed {
    let (now, start_s) = (plant.now(), plant.trace.start_s);
    let redis_now_ms = EPOCH_MS + i64::from(now) * 1000;
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let in_seconds = |second: u32| i64::from(second.saturating_sub(now)) * 1000;
    let (waiting, in_flight, totals) = (plant.waiting(), plant.in_flight(), &plant.totals);
    let depth = Depth {
        undelivered: waiting,
        in_flight,
        oldest_undelivered_ms: plant.oldest_wait().map(|seconds| u64::from(seconds) * 1000),
        redis_now_ms,
    };
    let gauges = Gauges {
        at_ms: redis_now_ms,
        unsettled: signed(waiting + in_flight + plant.retrying()),
        due_not_enqueued: 0,
        oldest_due_ms: -1,
        next_due_ms: plant.next_retry().map_or(-1, in_seconds),
        accepted_total: signed(totals.accepted),
        attempts_total: signed(totals.attempts),
        retried_total: signed(totals.retried),
        attempt_ms_total: (totals.attempt_seconds * 1000.0) as i64,
    };
    let pod = |since: Option<u32>| match since {
        Some(since) => WorkerPod::NotReady { since: at(since) },
        None => WorkerPod::Ready { start_seconds: Some(f64::from(start_s)) },
    };
    let pods: Vec<WorkerPod> = plant.workers().iter().map(|worker| pod(worker.not_ready_since(now, start_s))).collect();
    let workers = Workers { replicas: pods.len() as u32, pods, ..Workers::default() };
    Observed { sample: Some(Sample { at: at(now), depth: Some(depth), gauges: Some(gauges) }), workers }
}
