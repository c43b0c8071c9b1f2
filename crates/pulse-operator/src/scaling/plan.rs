//! Makes the decision from the rules, the history and the observed pods. No clock, no I/O.

use std::fmt::Write;

use jiff::Timestamp;

use super::decision::{Decision, Limit, ScalingReason};
use super::estimate::{Estimate, WAKE_LEAD};
use super::history::History;
use super::limits::{self, Count};
use super::policy::{Policy, Workers};
use super::targets;
use crate::crd::DecisionInputs;

/// Decides the number of workers at `now`. Call [`History::decided`] once the decision is applied.
pub fn plan_workers(policy: &Policy, history: &History, workers: &Workers, now: Timestamp) -> Decision {
    let inputs = inputs(policy, history, now);
    if let Some(fixed) = policy.fixed {
        return fixed_decision(fixed, policy, inputs);
    }
    let current = workers.replicas;
    let recommendation = targets::recommend(policy, history, workers, now);
    let recommended = limits::bounded(&recommendation, policy, current);
    let count = limits::limited(recommended, recommendation.reason, policy, history, workers, now);
    Decision {
        replicas: count.replicas,
        recommended: recommended.replicas,
        reason: recommendation.reason,
        limited_by: count.limited_by,
        message: explain(&recommendation.explanation, recommendation.count(), count, current),
        inputs,
        next_wake: if count.replicas == 0 { next_wake(policy, history, now) } else { None },
    }
}

/// The spec sets the number; only the connection budget of PostgreSQL limits it.
fn fixed_decision(fixed: u32, policy: &Policy, inputs: DecisionInputs) -> Decision {
    let replicas = fixed.min(policy.ceiling());
    let limited_by = (replicas < fixed).then_some(Limit::DatabaseConnectionBudget);
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

fn inputs(policy: &Policy, history: &History, now: Timestamp) -> DecisionInputs {
    let rates = history.learning();
    let (backlog, in_flight, oldest_age) = match history.estimate(now, policy.poll) {
        Estimate::Whole(queue) | Estimate::Stale { last: Some(queue), .. } => {
            (Some(queue.backlog), Some(queue.in_flight), queue.oldest_age)
        }
        Estimate::Stale { last: None, lower_bound } | Estimate::Unknown { lower_bound } => {
            (None, lower_bound.map(|bound| bound.in_flight), None)
        }
    };
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    DecisionInputs {
        backlog: backlog.map(signed),
        in_flight: in_flight.map(signed),
        arrivals_per_second: rates.arrivals().map(rounded),
        throughput_per_worker: rates.throughput().map(rounded),
        oldest_age_seconds: oldest_age.map(signed),
    }
}

/// Two decimals: noise in later digits would cause a write of the status for each sample.
fn rounded(rate: f64) -> f64 {
    (rate * 100.0).round() / 100.0
}

/// [`WAKE_LEAD`] before the next retry falls due.
fn next_wake(policy: &Policy, history: &History, now: Timestamp) -> Option<Timestamp> {
    let due = match history.estimate(now, policy.poll) {
        Estimate::Whole(queue) => queue.next_due,
        Estimate::Stale { last, .. } => last.and_then(|queue| queue.next_due),
        Estimate::Unknown { .. } => None,
    };
    due.map(|due| due.checked_sub(WAKE_LEAD).unwrap_or(due))
}
