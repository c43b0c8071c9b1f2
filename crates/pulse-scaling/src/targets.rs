//! The recommendation: how many workers the work needs, before bounds, stabilization and scaling policies.

use jiff::Timestamp;

use crate::decision::ScalingReason;
use crate::learning::Learned;
use crate::memory::Memory;
use crate::observed::{Depth, Workers};
use crate::policy::Policy;
use crate::queue::{Estimate, QueueState};

/// Planned utilisation of the slots. Tasks that come by chance while all are taken wait a little, as the targets allow.
const UTILISATION: f64 = 0.95;
/// Part of the drain time within which waiting tasks are drained at the latest, also if new workers take longer to
/// start.
const MIN_HORIZON: f64 = 0.25;
/// Part of the drain time for which tasks may wait for good.
const MAY_WAIT: f64 = 0.25;
/// Part of a worker that adds one, unless a task is near its maximum age.
const WORTH_A_WORKER: f64 = 0.5;
/// A waiting task is near its maximum age in the last part of it, or if fewer times of this count are left than it takes
/// until a new worker takes part.
const AGE_WARNING: f64 = 0.5;
const DELAYS_LEFT: f64 = 2.0;

/// The number of workers that a target or rule asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recommendation {
    /// Number of workers, not rounded.
    pub(crate) exact: f64,
    pub(crate) reason: ScalingReason,
    /// The figures that it was computed from, as the first part of the decision's message.
    pub(crate) explanation: String,
    /// The oldest waiting task is near its maximum age, so the tolerance does not apply.
    pub(crate) urgent: bool,
}

impl Recommendation {
    fn new(exact: f64, reason: ScalingReason, explanation: impl Into<String>) -> Self {
        Self { exact, reason, explanation: explanation.into(), urgent: false }
    }

    /// Number of workers. A part of a worker does not add one before tasks have waited for it, as the targets allow;
    /// more of them wait meanwhile, until the part is large enough.
    pub(crate) fn count(&self) -> u32 {
        let may_wait = self.reason == ScalingReason::DrainTimeTarget && !self.urgent;
        let part = if may_wait { WORTH_A_WORKER } else { 1e-9 };
        (self.exact - part).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
    }
}

/// Computes the recommendation at `now`.
pub(crate) fn recommend(policy: &Policy, memory: &Memory, workers: &Workers, now: Timestamp) -> Recommendation {
    let current = workers.replicas;
    match memory.estimate(now, policy.poll) {
        Estimate::Whole(queue) => {
            let recommendation = target(policy, memory.learned(), &queue, "");
            if current == 0 {
                scale_from_zero(recommendation, &queue, now)
            } else {
                scale_to_zero_when_idle(recommendation, policy, memory, workers, now)
            }
        }
        Estimate::Stale { last, lower_bound } => {
            let from_last = last.map(|queue| target(policy, memory.learned(), &queue, ""));
            let retry = last.filter(|queue| current == 0 && queue.retry_is_near(now));
            let retry = retry.map(|_| Recommendation::new(1.0, ScalingReason::Wake, "a retry falls due"));
            let from_redis = lower_bound.map(|depth| at_least(policy, memory, &depth));
            highest_above(f64::from(current), unknown(memory), [from_last, retry, from_redis])
        }
        Estimate::Unknown { lower_bound } => {
            let floor = current.max(1).max(policy.fallback.unwrap_or(0));
            let from_redis = lower_bound.map(|depth| at_least(policy, memory, &depth));
            highest_above(f64::from(floor), unknown(memory), [from_redis])
        }
    }
}

/// The target for what Redis alone knows. It is the same rule with what was learned before.
fn at_least(policy: &Policy, memory: &Memory, depth: &Depth) -> Recommendation {
    target(policy, memory.learned(), &QueueState::at_least(depth), "at least ")
}

/// The drain-time target or the age target once the time of an attempt is known, else the backlog target.
fn target(policy: &Policy, learned: Learned, queue: &QueueState, qualifier: &str) -> Recommendation {
    let Some(attempt) = learned.attempt_seconds else {
        let per_worker = policy.target.backlog_per_worker.max(1);
        let explanation = format!("{qualifier}{} tasks wait, target is {per_worker} per worker", queue.waiting);
        let exact = queue.waiting as f64 / f64::from(per_worker);
        return Recommendation::new(exact, ScalingReason::BacklogTarget, explanation);
    };
    let drain = drain_time(policy, learned, queue);
    let arrivals = learned.arrivals_per_second.unwrap_or(0.0);
    // What a task takes of a slot.
    let slots = slots(queue, attempt + learned.overhead_seconds.unwrap_or(0.0), arrivals, &drain);
    let QueueState { waiting, in_flight, .. } = queue;
    let why = match (drain.reason, queue.oldest_age, policy.target.max_age_seconds) {
        (ScalingReason::AgeTarget, Some(age), Some(limit)) => {
            format!(", the oldest for {age} s, target is at most {limit} s")
        }
        _ => format!(", target is to start them within {} s", policy.target.drain_seconds),
    };
    let explanation = format!(
        "{qualifier}{waiting} tasks wait{why}: {in_flight} in flight, {arrivals:.1} arrivals/s, {attempt:.1} s per attempt"
    );
    let exact = slots / (f64::from(policy.concurrency.max(1)) * UTILISATION);
    Recommendation { urgent: drain.urgent, ..Recommendation::new(exact, drain.reason, explanation) }
}

/// Time within which the waiting tasks have to be started.
struct DrainTime {
    /// In seconds, without the time that passes until new workers take part.
    horizon: f64,
    /// Time for which tasks may wait without more workers, in seconds.
    may_wait: f64,
    reason: ScalingReason,
    urgent: bool,
}

fn drain_time(policy: &Policy, learned: Learned, queue: &QueueState) -> DrainTime {
    let drain = f64::from(policy.target.drain_seconds.max(1));
    let delay = policy.poll.as_secs_f64() + learned.start_seconds.unwrap_or(0.0);
    let limit = policy.target.max_age_seconds.map_or(drain, f64::from);
    let left = limit - queue.oldest_age.unwrap_or(0) as f64;
    let urgent = queue.oldest_age.is_some() && (left <= AGE_WARNING * limit || left <= DELAYS_LEFT * delay);
    let shortest = (drain * MIN_HORIZON).max(policy.poll.as_secs_f64()).min(drain);
    let has_limit = policy.target.max_age_seconds.is_some();
    let reason =
        if has_limit && left < drain && urgent { ScalingReason::AgeTarget } else { ScalingReason::DrainTimeTarget };
    let horizon = (drain.min(left) - delay).clamp(shortest, drain);
    DrainTime { horizon, may_wait: if urgent { 0.0 } else { MAY_WAIT * drain }, reason, urgent }
}

/// Number of slots with which the waiting tasks are started within the horizon, while others arrive.
///
/// Of the slots in use, `horizon / attempt` are free by then, or all of them if attempts are shorter; the others stay in
/// use. A slot starts one waiting task within that time, or more of them if attempts are shorter. Tasks that wait for a
/// small part of the drain time may do so for good, as long as there are slots for those that arrive.
fn slots(queue: &QueueState, attempt: f64, arrivals: f64, drain: &DrainTime) -> f64 {
    let freed = (drain.horizon / attempt.max(f64::MIN_POSITIVE)).min(1.0);
    let late = (queue.waiting as f64 - arrivals * drain.may_wait).max(0.0);
    let for_late = late * (attempt / drain.horizon).min(1.0);
    (1.0 - freed) * queue.in_flight as f64 + freed * arrivals * attempt + for_late
}

/// Without a worker: stays at zero until a task is due, was accepted, or falls due soon.
fn scale_from_zero(recommendation: Recommendation, queue: &QueueState, now: Timestamp) -> Recommendation {
    let explanation = if queue.waiting > 0 {
        recommendation.explanation
    } else if queue.arrived {
        "new tasks were accepted".to_owned()
    } else if queue.retry_is_near(now) {
        "a retry falls due".to_owned()
    } else {
        return Recommendation::new(0.0, ScalingReason::Idle, "no task is due");
    };
    Recommendation::new(recommendation.exact.max(1.0), ScalingReason::Wake, explanation)
}

/// With workers: only the idle time removes the last one, no target does.
fn scale_to_zero_when_idle(
    recommendation: Recommendation,
    policy: &Policy,
    memory: &Memory,
    workers: &Workers,
    now: Timestamp,
) -> Recommendation {
    if recommendation.count() > 1 {
        return recommendation;
    }
    let idle = memory.idle_since.map(|since| now.duration_since(since));
    match idle.filter(|idle| *idle >= policy.idle) {
        Some(idle) if may_scale_to_zero(workers) => {
            let explanation = format!("no task was due or accepted for {} s", idle.as_secs());
            Recommendation::new(0.0, ScalingReason::Idle, explanation)
        }
        _ => Recommendation { exact: recommendation.exact.max(1.0), ..recommendation },
    }
}

fn may_scale_to_zero(workers: &Workers) -> bool {
    workers.replicas == 1 && !workers.rolling_out && !workers.migrating
}

/// The highest recommendation above `floor`; without one, `floor` because the backlog is unknown.
fn highest_above<const N: usize>(
    floor: f64,
    explanation: String,
    recommendations: [Option<Recommendation>; N],
) -> Recommendation {
    let highest = recommendations.into_iter().flatten().max_by(|left, right| left.exact.total_cmp(&right.exact));
    highest
        .filter(|recommendation| recommendation.exact > floor)
        .unwrap_or_else(|| Recommendation::new(floor, ScalingReason::Unknown, explanation))
}

fn unknown(memory: &Memory) -> String {
    format!("backlog is unknown, incomplete samples in a row: {}", memory.missed_samples())
}
