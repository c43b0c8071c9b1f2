//! Makes the decision from the rules, the past and what was found. No clock, no I/O.

use std::fmt::Write;

use jiff::Timestamp;

use crate::decision::{Decision, Inputs, Limit, ScalingReason};
use crate::limits::{self, Count};
use crate::memory::Memory;
use crate::observed::Observed;
use crate::policy::Policy;
use crate::queue::{Estimate, WAKE_LEAD};
use crate::targets;

/// Decides the number of workers at `now`. Returns the memory for the next decision, whether this one is applied or not:
/// a change of the number of workers is observed, not assumed.
pub fn decide(policy: &Policy, mut memory: Memory, observed: &Observed, now: Timestamp) -> (Decision, Memory) {
    memory.observe(observed, policy, now);
    let decision = match policy.fixed {
        Some(fixed) => fixed_decision(fixed, policy, inputs(policy, &memory, now)),
        None => computed_decision(policy, &memory, observed, now),
    };
    memory.decided(decision.recommended, decision.replicas, now);
    (decision, memory)
}

fn computed_decision(policy: &Policy, memory: &Memory, observed: &Observed, now: Timestamp) -> Decision {
    let workers = &observed.workers;
    let recommendation = targets::recommend(policy, memory, workers, now);
    let recommended = limits::bounded(&recommendation, policy, workers.replicas, now);
    let count = limits::limited(recommended, recommendation.reason, policy, memory, workers, now);
    Decision {
        replicas: count.replicas,
        recommended: recommended.replicas,
        reason: recommendation.reason,
        limited_by: count.limited_by,
        message: explain(&recommendation.explanation, recommendation.count(), count, workers.replicas),
        inputs: inputs(policy, memory, now),
        next_wake: next_wake(policy, memory, count.replicas, now),
    }
}

/// The spec sets the number; only the connection budget of PostgreSQL limits it.
fn fixed_decision(fixed: u32, policy: &Policy, inputs: Inputs) -> Decision {
    let replicas = fixed.min(policy.ceiling()).max(policy.connection_floor);
    let limited_by = (replicas != fixed).then_some(Limit::DatabaseConnectionBudget);
    let message = explain("set in the spec", fixed, Count { replicas, limited_by }, replicas);
    Decision {
        replicas,
        recommended: replicas,
        reason: ScalingReason::Fixed,
        limited_by,
        message,
        inputs,
        next_wake: None,
    }
}

fn explain(explanation: &str, recommended: u32, count: Count, current: u32) -> String {
    let Count { replicas, limited_by } = count;
    let mut message = format!("{explanation}: {recommended} {}", if recommended == 1 { "worker" } else { "workers" });
    if let Some(limit) = limited_by {
        let verb = if replicas == current { "kept at" } else { "limited to" };
        // Writing to a String does not fail.
        let _ = write!(message, ", {verb} {replicas} by {}", limit.name());
    }
    message
}

fn inputs(policy: &Policy, memory: &Memory, now: Timestamp) -> Inputs {
    let learned = memory.learned();
    let (waiting, in_flight, oldest_age_seconds) = match memory.estimate(now, policy.poll) {
        Estimate::Whole(queue) | Estimate::Stale { last: Some(queue), .. } => {
            (Some(queue.waiting), Some(queue.in_flight), queue.oldest_age)
        }
        Estimate::Stale { last: None, lower_bound } | Estimate::Unknown { lower_bound } => {
            (None, lower_bound.map(|depth| depth.in_flight), None)
        }
    };
    Inputs {
        waiting,
        in_flight,
        oldest_age_seconds,
        arrivals_per_second: learned.arrivals_per_second,
        attempt_seconds: learned.attempt_seconds,
    }
}

/// [`WAKE_LEAD`] before the next retry falls due while there is no worker, or the next change of a schedule.
fn next_wake(policy: &Policy, memory: &Memory, replicas: u32, now: Timestamp) -> Option<Timestamp> {
    let due = match memory.estimate(now, policy.poll) {
        Estimate::Whole(queue) | Estimate::Stale { last: Some(queue), .. } if replicas == 0 => queue.next_due,
        _ => None,
    };
    let retry = due.map(|due| due.checked_sub(WAKE_LEAD).unwrap_or(due));
    retry.into_iter().chain(policy.schedules.iter().filter_map(|schedule| schedule.next_change(now))).min()
}
