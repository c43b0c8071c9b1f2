//! The recommendation: how many workers the work needs, before bounds, stabilization and scaling policies.

use jiff::Timestamp;

use super::decision::ScalingReason;
use super::estimate::{Estimate, LowerBound, QueueState};
use super::history::History;
use super::policy::{Policy, Workers};

/// Planned utilisation of a worker. The reserve keeps a queue from building up when arrivals vary.
const UTILISATION: f64 = 0.8;
/// The age target adds workers from this fraction of the maximum age on.
const AGE_WARNING: f64 = 0.8;

/// The number of workers that a target or rule asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recommendation {
    /// Number of workers, not rounded.
    pub(super) exact: f64,
    pub(super) reason: ScalingReason,
    /// The figures that it was computed from, as the first part of the decision's message.
    pub(super) explanation: String,
    /// The age target asks for more workers as well, so the tolerance does not apply.
    pub(super) urgent: bool,
}

impl Recommendation {
    fn new(exact: f64, reason: ScalingReason, explanation: impl Into<String>) -> Self {
        Self { exact, reason, explanation: explanation.into(), urgent: false }
    }

    /// Number of workers, rounded up. An excess within the error of floating point does not add a worker.
    pub(super) fn count(&self) -> u32 {
        (self.exact - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
    }
}

/// Computes the recommendation at `now`.
pub(super) fn recommend(policy: &Policy, history: &History, workers: &Workers, now: Timestamp) -> Recommendation {
    let current = workers.replicas;
    match history.estimate(now, policy.poll) {
        Estimate::Whole(queue) => {
            let target = drain_time_or_backlog_target(policy, history, &queue);
            let recommendation = with_age_target(target, policy, &queue, workers, now);
            if current == 0 {
                scale_from_zero(recommendation, &queue, now)
            } else {
                scale_to_zero_when_idle(recommendation, policy, history, workers, now)
            }
        }
        Estimate::Stale { last, lower_bound } => {
            let target = last.map(|queue| drain_time_or_backlog_target(policy, history, &queue));
            let retry = last.filter(|queue| current == 0 && queue.retry_is_near(now));
            let retry = retry.map(|_| Recommendation::new(1.0, ScalingReason::Wake, "a retry falls due"));
            let from_redis = lower_bound.map(|bound| lower_bound_target(policy, bound));
            highest_above(f64::from(current), unknown_backlog(history), [target, retry, from_redis])
        }
        Estimate::Unknown { lower_bound } => {
            let from_redis = lower_bound.map(|bound| lower_bound_target(policy, bound));
            highest_above(f64::from(current.max(1)), unknown_backlog(history), [from_redis])
        }
    }
}

/// The drain-time target once throughput and arrivals are known, else the backlog target.
fn drain_time_or_backlog_target(policy: &Policy, history: &History, queue: &QueueState) -> Recommendation {
    let backlog = queue.backlog as f64;
    let learning = history.learning();
    if let (Some(throughput), Some(arrivals)) = (learning.throughput(), learning.arrivals()) {
        let drain = f64::from(policy.target.drain_seconds.max(1));
        let exact = (backlog / drain + arrivals) / (throughput * UTILISATION);
        let explanation = format!(
            "backlog is {} with {arrivals:.1} arrivals/s, target is to drain it in {drain} s \
             at {throughput:.1} tasks/s per worker",
            queue.backlog
        );
        return Recommendation::new(exact, ScalingReason::DrainTimeTarget, explanation);
    }
    backlog_target(policy, queue.backlog, "")
}

fn backlog_target(policy: &Policy, backlog: u64, qualifier: &str) -> Recommendation {
    let per_worker = policy.target.backlog_per_worker.max(1);
    let explanation = format!("backlog is {qualifier}{backlog}, target is {per_worker} per worker");
    Recommendation::new(backlog as f64 / f64::from(per_worker), ScalingReason::BacklogTarget, explanation)
}

fn lower_bound_target(policy: &Policy, LowerBound { length, .. }: LowerBound) -> Recommendation {
    backlog_target(policy, length, "at least ")
}

/// The age target if it asks for more than `recommendation`. It applies only while tasks wait: more workers do not
/// speed up a running task. Below the maximum age, it adds no workers while pods are still starting.
fn with_age_target(
    recommendation: Recommendation,
    policy: &Policy,
    queue: &QueueState,
    workers: &Workers,
    now: Timestamp,
) -> Recommendation {
    let (Some(limit), Some(age)) = (policy.target.max_age_seconds, queue.oldest_age) else { return recommendation };
    if !queue.has_waiting() || (age as f64) < AGE_WARNING * f64::from(limit) {
        return recommendation;
    }
    let current = workers.replicas;
    let exact = match current + (current / 2).max(1) {
        _ if age >= u64::from(limit) => policy.ceiling(),
        _ if workers.has_pending_pods(now) => current,
        more => more,
    };
    if f64::from(exact) <= recommendation.exact {
        return Recommendation { urgent: exact > current, ..recommendation };
    }
    Recommendation::new(
        f64::from(exact),
        ScalingReason::AgeTarget,
        format!("oldest task is {age} s old, target is at most {limit} s"),
    )
}

/// Without a worker: stays at zero until a task is due, was accepted, or falls due soon.
fn scale_from_zero(recommendation: Recommendation, queue: &QueueState, now: Timestamp) -> Recommendation {
    let explanation = match &recommendation {
        recommendation if recommendation.exact > 0.0 && queue.backlog > 0 => {
            return Recommendation { reason: ScalingReason::Wake, ..recommendation.clone() };
        }
        _ if queue.arrived => "new tasks were accepted",
        _ if queue.retry_is_near(now) => "a retry falls due",
        _ => return Recommendation::new(0.0, ScalingReason::Idle, "no task is due"),
    };
    Recommendation::new(recommendation.exact.max(1.0), ScalingReason::Wake, explanation)
}

/// With workers: only the idle time removes the last one, no target does.
fn scale_to_zero_when_idle(
    recommendation: Recommendation,
    policy: &Policy,
    history: &History,
    workers: &Workers,
    now: Timestamp,
) -> Recommendation {
    if recommendation.exact > 1.0 {
        return recommendation;
    }
    match history.idle_for(now).filter(|idle| *idle >= policy.idle) {
        Some(idle) if may_scale_to_zero(policy, workers) => {
            let explanation = format!("no task was due or accepted for {} s", idle.as_secs());
            Recommendation::new(0.0, ScalingReason::Idle, explanation)
        }
        _ => Recommendation { exact: recommendation.exact.max(1.0), ..recommendation },
    }
}

fn may_scale_to_zero(policy: &Policy, workers: &Workers) -> bool {
    policy.floor() == 0 && workers.replicas == 1 && !workers.rolling_out && !workers.migrating
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

fn unknown_backlog(history: &History) -> String {
    let reason = history.error().map_or("no current figures from the scheduler", |error| error.reason());
    format!("backlog is unknown ({reason}, incomplete samples in a row: {})", history.missed_samples())
}
