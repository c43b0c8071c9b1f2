//! Limits of a recommendation: bounds, tolerance, stabilization windows and scaling policies, as in a
//! HorizontalPodAutoscaler, and the state of the pods.

use jiff::Timestamp;

use crate::decision::{Limit, ScalingReason};
use crate::memory::Memory;
use crate::observed::Workers;
use crate::policy::{Pause, Policy, seconds};
use crate::targets::Recommendation;

/// A number of workers, and the limit that applied last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) replicas: u32,
    pub(crate) limited_by: Option<Limit>,
}

impl Count {
    fn limit(self, replicas: u32, limit: Limit) -> Self {
        if replicas == self.replicas { self } else { Self { replicas, limited_by: Some(limit) } }
    }
}

/// Applies the tolerance and the spec's bounds to a recommendation.
pub(crate) fn bounded(recommendation: &Recommendation, policy: &Policy, current: u32, now: Timestamp) -> Count {
    let count = Count { replicas: recommendation.count(), limited_by: None };
    let is_relative = match recommendation.reason {
        ScalingReason::BacklogTarget | ScalingReason::DrainTimeTarget | ScalingReason::AgeTarget => {
            !(recommendation.urgent && count.replicas > current)
        }
        _ => false,
    };
    let change = (recommendation.exact / f64::from(current.max(1)) - 1.0).abs();
    let tolerance = f64::from(policy.behavior.tolerance_percent) / 100.0;
    let count = if is_relative && current > 0 && change <= tolerance + 1e-9 {
        count.limit(current, Limit::Tolerance)
    } else {
        count
    };
    within_bounds(count, policy, now)
}

/// Applies stabilization, scaling policies, the state of the pods and a pause to a recommendation.
pub(crate) fn limited(
    recommended: Count,
    reason: ScalingReason,
    policy: &Policy,
    memory: &Memory,
    workers: &Workers,
    now: Timestamp,
) -> Count {
    let current = workers.replicas;
    let count = if current == 0 || reason == ScalingReason::Idle {
        recommended
    } else {
        limited_by_policies(stabilized(recommended, policy, memory, current, now), policy, memory, current, now)
    };
    // A changed bound applies at once, regardless of other limits. Only a pause takes precedence over the bounds.
    let count = within_bounds(limited_by_state(count, policy, memory, workers, now), policy, now);
    let count = count.limit(count.replicas.max(policy.connection_floor), Limit::DatabaseConnectionBudget);
    let is_paused = match policy.paused {
        Pause::None => false,
        Pause::All => true,
        Pause::ScaleUp => count.replicas > current,
        Pause::ScaleDown => count.replicas < current,
    };
    if is_paused { count.limit(current, Limit::Paused) } else { count }
}

fn within_bounds(count: Count, policy: &Policy, now: Timestamp) -> Count {
    let too_many = match policy.connection_limit {
        Some(limit) if limit < policy.max || policy.fixed.is_some() => Limit::DatabaseConnectionBudget,
        _ => Limit::TooManyReplicas,
    };
    let ceiling = policy.ceiling();
    let scheduled = policy.schedules.iter().map(|schedule| schedule.min_at(now)).max().unwrap_or(0);
    let count = count.limit(count.replicas.min(ceiling), too_many);
    let count = count.limit(count.replicas.max(policy.min.min(ceiling)), Limit::TooFewReplicas);
    count.limit(count.replicas.max(scheduled.min(ceiling)), Limit::Schedule)
}

/// The most conservative recommendation within the stabilization windows.
fn stabilized(count: Count, policy: &Policy, memory: &Memory, current: u32, now: Timestamp) -> Count {
    let within = |window| memory.recommendations_within(now, seconds(window)).chain([count.replicas]);
    let lowest = within(policy.behavior.scale_up.stabilization_window_seconds).min().unwrap_or(count.replicas);
    let highest = within(policy.behavior.scale_down.stabilization_window_seconds).max().unwrap_or(count.replicas);
    // Stabilization never reverses the direction of a change.
    let stable = if count.replicas > current { lowest.max(current) } else { highest.min(current) };
    count.limit(stable, Limit::Stabilized)
}

/// Scaling policies: at most the larger of `percent` and `workers` in each period.
fn limited_by_policies(count: Count, policy: &Policy, memory: &Memory, current: u32, now: Timestamp) -> Count {
    let (up, down) = (&policy.behavior.scale_up, &policy.behavior.scale_down);
    if count.replicas > current {
        let (added, _) = memory.changes_within(now, seconds(up.period_seconds));
        let start = current.saturating_sub(added);
        let max = start.saturating_add(up.workers.max(percent_of(start, up.percent).ceil() as u32)).max(current);
        return count.limit(count.replicas.min(max), Limit::ScaleUpLimit);
    }
    let (_, removed) = memory.changes_within(now, seconds(down.period_seconds));
    let start = current.saturating_add(removed);
    let min = start.saturating_sub(down.workers.max(percent_of(start, down.percent).ceil() as u32)).min(current);
    count.limit(count.replicas.max(min), Limit::ScaleDownLimit)
}

fn percent_of(count: u32, percent: u32) -> f64 {
    f64::from(count) * f64::from(percent) / 100.0 - 1e-9
}

/// Prevents a change that the state of the pods, or a history with gaps, does not allow.
fn limited_by_state(count: Count, policy: &Policy, memory: &Memory, workers: &Workers, now: Timestamp) -> Count {
    let current = workers.replicas;
    if count.replicas > current && workers.failing(now) {
        return count.limit(current, Limit::WorkersNotReady);
    }
    if count.replicas < current && workers.rolling_out {
        return count.limit(current, Limit::RolloutInProgress);
    }
    if count.replicas < current
        && memory.reliable_for(now) < seconds(policy.behavior.scale_down.stabilization_window_seconds)
    {
        return count.limit(current, Limit::Stabilized);
    }
    count
}
