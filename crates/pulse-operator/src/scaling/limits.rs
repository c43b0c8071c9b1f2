//! Limits of a recommendation: bounds, tolerance, stabilization windows and scaling policies, as in a
//! HorizontalPodAutoscaler, and the state of the pods.

use jiff::Timestamp;

use super::decision::{Limit, ScalingReason};
use super::history::History;
use super::policy::{Policy, Workers, seconds};
use super::targets::Recommendation;
use crate::crd::AutoscalingPause;

/// A number of workers, and the limit that applied last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) replicas: u32,
    pub(super) limited_by: Option<Limit>,
}

impl Count {
    fn limit(self, replicas: u32, limit: Limit) -> Self {
        if replicas == self.replicas { self } else { Self { replicas, limited_by: Some(limit) } }
    }
}

/// Applies the tolerance and the spec's bounds to a recommendation.
pub(super) fn bounded(recommendation: &Recommendation, policy: &Policy, current: u32) -> Count {
    let count = Count { replicas: recommendation.count(), limited_by: None };
    let relative = matches!(recommendation.reason, ScalingReason::BacklogTarget | ScalingReason::DrainTimeTarget)
        && !recommendation.urgent;
    let change = (recommendation.exact / f64::from(current.max(1)) - 1.0).abs();
    let tolerance = f64::from(policy.behavior.tolerance_percent) / 100.0;
    let count = if relative && current > 0 && change <= tolerance + 1e-9 {
        count.limit(current, Limit::Tolerance)
    } else {
        count
    };
    within_bounds(count, policy)
}

/// Applies stabilization, scaling policies, the state of the pods and a pause to a recommendation.
pub(super) fn limited(
    recommended: Count,
    reason: ScalingReason,
    policy: &Policy,
    history: &History,
    workers: &Workers,
    now: Timestamp,
) -> Count {
    let current = workers.replicas;
    let count = if current == 0 || reason == ScalingReason::Idle {
        recommended
    } else {
        limited_by_policies(stabilized(recommended, policy, history, current, now), policy, history, current, now)
    };
    // A changed bound applies at once, regardless of other limits. Only a pause takes precedence over the bounds.
    let count = within_bounds(limited_by_state(count, policy, history, workers, now), policy);
    let is_paused = match policy.paused {
        AutoscalingPause::None => false,
        AutoscalingPause::All => true,
        AutoscalingPause::ScaleUp => count.replicas > current,
        AutoscalingPause::ScaleDown => count.replicas < current,
    };
    if is_paused { count.limit(current, Limit::Paused) } else { count }
}

fn within_bounds(count: Count, policy: &Policy) -> Count {
    let too_many = match policy.connection_limit {
        Some(limit) if limit < policy.max || policy.fixed.is_some() => Limit::DatabaseConnectionBudget,
        _ => Limit::TooManyReplicas,
    };
    let count = count.limit(count.replicas.min(policy.ceiling()), too_many);
    count.limit(count.replicas.max(policy.floor()), Limit::TooFewReplicas)
}

/// The most conservative recommendation within the stabilization windows.
fn stabilized(count: Count, policy: &Policy, history: &History, current: u32, now: Timestamp) -> Count {
    let within = |window| history.recommendations_within(now, seconds(window)).chain([count.replicas]);
    let lowest = within(policy.behavior.scale_up.stabilization_window_seconds).min().unwrap_or(count.replicas);
    let highest = within(policy.behavior.scale_down.stabilization_window_seconds).max().unwrap_or(count.replicas);
    // Stabilization never reverses the direction of a change.
    let stable = if count.replicas > current { lowest.max(current) } else { highest.min(current) };
    count.limit(stable, Limit::Stabilized)
}

/// Scaling policies: at most the larger of `percent` and `workers` in each period.
fn limited_by_policies(count: Count, policy: &Policy, history: &History, current: u32, now: Timestamp) -> Count {
    let (up, down) = (&policy.behavior.scale_up, &policy.behavior.scale_down);
    if count.replicas > current {
        let (added, _) = history.changes_within(now, seconds(up.period_seconds));
        let start = current.saturating_sub(added);
        let max = start.saturating_add(up.workers.max(percent_of(start, up.percent).ceil() as u32)).max(current);
        return count.limit(count.replicas.min(max), Limit::ScaleUpLimit);
    }
    let (_, removed) = history.changes_within(now, seconds(down.period_seconds));
    let start = current.saturating_add(removed);
    let min = start.saturating_sub(down.workers.max(percent_of(start, down.percent).ceil() as u32)).min(current);
    count.limit(count.replicas.max(min), Limit::ScaleDownLimit)
}

fn percent_of(count: u32, percent: u32) -> f64 {
    f64::from(count) * f64::from(percent) / 100.0 - 1e-9
}

/// Prevents a change that the state of the pods, or a history with gaps, does not allow.
fn limited_by_state(count: Count, policy: &Policy, history: &History, workers: &Workers, now: Timestamp) -> Count {
    let current = workers.replicas;
    if count.replicas > current && workers.failing(now) {
        return count.limit(current, Limit::WorkersNotReady);
    }
    if count.replicas < current && workers.rolling_out {
        return count.limit(current, Limit::RolloutInProgress);
    }
    if count.replicas < current
        && history.reliable_for(now) < seconds(policy.behavior.scale_down.stabilization_window_seconds)
    {
        return count.limit(current, Limit::Stabilized);
    }
    count
}
