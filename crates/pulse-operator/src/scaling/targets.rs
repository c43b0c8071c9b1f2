//! How many workers the work needs, before bounds, windows and policies.

use jiff::Timestamp;

use super::decision::ScalingReason;
use super::estimate::{Estimate, LowerBound, QueueState};
use super::history::History;
use super::policy::{Policy, Workers};

/// A worker is planned to be busy for this part of its time, so that a queue does not build up by chance.
const UTILISATION: f64 = 0.8;
/// reason C adds workers from this part of the greatest age on.
const AGE_WARNING: f64 = 0.8;

/// What the work asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recommendation {
    /// Workers, not rounded.
    pub(super) exact: f64,
    pub(super) reason: ScalingReason,
    /// Half a sentence: what it was computed from.
    pub(super) why: String,
    /// A task gets too old, too: no tolerance holds the number.
    pub(super) urgent: bool,
}

impl Recommendation {
    fn new(exact: f64, reason: ScalingReason, why: impl Into<String>) -> Self {
        Self { exact, reason, why: why.into(), urgent: false }
    }

    /// Workers. What is above a whole number only by the error of floating point is not one more.
    pub(super) fn count(&self) -> u32 {
        (self.exact - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
    }
}

/// What the work asks for now.
pub(super) fn recommend(policy: &Policy, history: &History, workers: &Workers, now: Timestamp) -> Recommendation {
    let current = workers.replicas;
    match history.estimate(now, policy.poll) {
        Estimate::Whole(queue) => {
            let recommendation = aged(demand(policy, history, &queue), policy, &queue, workers, now);
            if current == 0 {
                woken(recommendation, &queue, now)
            } else {
                rested(recommendation, policy, history, workers, now)
            }
        }
        Estimate::Stale { before, part } => {
            let known = before.map(|queue| demand(policy, history, &queue));
            let retry = before.filter(|queue| current == 0 && queue.wakes(now));
            let retry = retry.map(|_| Recommendation::new(1.0, ScalingReason::Wake, "a retry falls due"));
            at_least(f64::from(current), unknown(history), [known, retry, part.map(|part| lower_bound(policy, part))])
        }
        Estimate::Unknown { part } => {
            at_least(f64::from(current.max(1)), unknown(history), [part.map(|part| lower_bound(policy, part))])
        }
    }
}

/// reason B once it can be computed, else reason A.
fn demand(policy: &Policy, history: &History, queue: &QueueState) -> Recommendation {
    let backlog = queue.backlog as f64;
    let learning = history.learning();
    if let (Some(throughput), Some(arrivals)) = (learning.throughput(), learning.arrivals()) {
        let drain = f64::from(policy.target.drain_seconds.max(1));
        let exact = (backlog / drain + arrivals) / (throughput * UTILISATION);
        let why = format!(
            "a backlog of {} and {arrivals:.1} arrivals/s, to be drained in {drain} s at {throughput:.1}/s per worker",
            queue.backlog
        );
        return Recommendation::new(exact, ScalingReason::DrainTimeTarget, why);
    }
    by_backlog(policy, queue.backlog, "")
}

/// reason A.
fn by_backlog(policy: &Policy, backlog: u64, at_least: &str) -> Recommendation {
    let per_worker = policy.target.backlog_per_worker.max(1);
    let why = format!("a backlog of {at_least}{backlog} at {per_worker} per worker");
    Recommendation::new(backlog as f64 / f64::from(per_worker), ScalingReason::BacklogTarget, why)
}

fn lower_bound(policy: &Policy, LowerBound { length, .. }: LowerBound) -> Recommendation {
    by_backlog(policy, length, "at least ")
}

/// reason C, if it asks for more. Only where work is waiting: more workers do not make a running task faster. Pods that are
/// still starting have to show first that they are not enough.
fn aged(
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
        _ if workers.coming(now) => current,
        more => more,
    };
    if f64::from(exact) <= recommendation.exact {
        return Recommendation { urgent: exact > current, ..recommendation };
    }
    Recommendation::new(
        f64::from(exact),
        ScalingReason::AgeTarget,
        format!("the oldest task is {age} s old, of {limit} s at most"),
    )
}

/// From zero: nobody unless there is, or soon will be, something to do.
fn woken(recommendation: Recommendation, queue: &QueueState, now: Timestamp) -> Recommendation {
    let why = match &recommendation {
        recommendation if recommendation.exact > 0.0 && queue.backlog > 0 => {
            return Recommendation { reason: ScalingReason::Wake, ..recommendation.clone() };
        }
        _ if queue.arrived => "tasks arrive",
        _ if queue.wakes(now) => "a retry falls due",
        _ => return Recommendation::new(0.0, ScalingReason::Idle, "nothing is owed"),
    };
    Recommendation::new(recommendation.exact.max(1.0), ScalingReason::Wake, why)
}

/// The last worker goes by the idle rule alone.
fn rested(
    recommendation: Recommendation,
    policy: &Policy,
    history: &History,
    workers: &Workers,
    now: Timestamp,
) -> Recommendation {
    if recommendation.exact > 1.0 {
        return recommendation;
    }
    match history.quiet_for(now).filter(|quiet| *quiet >= policy.idle) {
        Some(quiet) if may_sleep(policy, workers) => {
            Recommendation::new(0.0, ScalingReason::Idle, format!("nothing has been owed for {} s", quiet.as_secs()))
        }
        _ => Recommendation { exact: recommendation.exact.max(1.0), ..recommendation },
    }
}

fn may_sleep(policy: &Policy, workers: &Workers) -> bool {
    policy.floor() == 0 && workers.replicas == 1 && !workers.rolling_out && !workers.migrating
}

/// The greatest of these, or `hold` if none asks for more.
fn at_least<const N: usize>(hold: f64, why: String, wishes: [Option<Recommendation>; N]) -> Recommendation {
    let most = wishes.into_iter().flatten().max_by(|left, right| left.exact.total_cmp(&right.exact));
    most.filter(|recommendation| recommendation.exact > hold)
        .unwrap_or_else(|| Recommendation::new(hold, ScalingReason::Unknown, why))
}

fn unknown(history: &History) -> String {
    let reason = history.error().map_or("the scheduler has not said what is owed", |error| error.reason());
    format!("the backlog is unknown ({reason}, {} samples)", history.misses())
}
