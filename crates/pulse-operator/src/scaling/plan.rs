//! The decision: rules, past and pods in, a number with its reasons out. No clock, no I/O.

use std::fmt::Write;

use jiff::Timestamp;

use super::decision::{Decision, Limit, ScalingReason};
use super::estimate::{Estimate, WAKE_LEAD};
use super::history::History;
use super::limits::{self, Count};
use super::policy::{Policy, Workers};
use super::targets;
use crate::crd::DecisionInputs;

/// How many workers there should be at `now`. Tell [`History::decided`] once it is done.
pub fn plan_workers(policy: &Policy, samples: &History, observed: &Workers, now: Timestamp) -> Decision {
    let inputs = inputs(policy, samples, now);
    if let Some(fixed) = policy.fixed {
        return fix(fixed, policy, inputs);
    }
    let current = observed.replicas;
    let recommendation = targets::recommend(policy, samples, observed, now);
    let recommended = limits::bounded(&recommendation, policy, current);
    let count = limits::limited(recommended, recommendation.reason, policy, samples, observed, now);
    Decision {
        replicas: count.replicas,
        recommended: recommended.replicas,
        reason: recommendation.reason,
        limited_by: count.limited_by,
        message: explain(&recommendation.why, recommendation.count(), count, current),
        inputs,
        next_wake: if count.replicas == 0 { next_wake(policy, samples, now) } else { None },
    }
}

/// The object says how many; only what PostgreSQL can take limits that.
fn fix(fixed: u32, policy: &Policy, inputs: DecisionInputs) -> Decision {
    let replicas = fixed.min(policy.ceiling());
    let limited_by = (replicas < fixed).then_some(Limit::DatabaseConnectionBudget);
    let message = explain("the object says so", fixed, Count { replicas, limited_by }, replicas);
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

fn explain(why: &str, wanted: u32, count: Count, current: u32) -> String {
    let Count { replicas, limited_by } = count;
    let mut message = format!("{why}: {wanted} {}", if wanted == 1 { "worker" } else { "workers" });
    if let Some(limit) = limited_by {
        let verb = if replicas == current { "held at" } else { "limited to" };
        // Writing to a String does not fail.
        let _ = write!(message, ", {verb} {replicas} by {}", limit.name());
    }
    message
}

fn inputs(policy: &Policy, samples: &History, now: Timestamp) -> DecisionInputs {
    let rates = samples.learning();
    let (backlog, in_flight, oldest_age) = match samples.estimate(now, policy.poll) {
        Estimate::Whole(queue) | Estimate::Stale { before: Some(queue), .. } => {
            (Some(queue.backlog), Some(queue.in_flight), queue.oldest_age)
        }
        Estimate::Stale { before: None, part } | Estimate::Unknown { part } => {
            (None, part.map(|part| part.in_flight), None)
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

/// For people: noise in later digits would only be a reason to write the status again.
fn rounded(rate: f64) -> f64 {
    (rate * 100.0).round() / 100.0
}

/// A little before the next retry falls due.
fn next_wake(policy: &Policy, samples: &History, now: Timestamp) -> Option<Timestamp> {
    let due = match samples.estimate(now, policy.poll) {
        Estimate::Whole(queue) => queue.next_due,
        Estimate::Stale { before, .. } => before.and_then(|queue| queue.next_due),
        Estimate::Unknown { .. } => None,
    };
    due.map(|due| due.checked_sub(WAKE_LEAD).unwrap_or(due))
}
