//! How fast the number of workers may change, and what holds it: tolerance, windows and policies as in a
//! HorizontalPodAutoscaler.

use jiff::Timestamp;

use super::decision::{Limit, ScalingReason};
use super::history::History;
use super::policy::{Policy, Workers, seconds};
use super::targets::Recommendation;
use crate::crd::AutoscalingPause;

/// A number of workers, and what limited it last.
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

/// What the object's bounds and the tolerance leave of a recommendation.
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

/// What windows, policies and the state of the pods leave of a recommendation.
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
        per_period(stabilized(recommended, policy, history, current, now), policy, history, current, now)
    };
    // Bounds that were changed apply at once, whatever else holds the number; only a pause holds it against them.
    let count = within_bounds(held(count, policy, history, workers, now), policy);
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

/// The most cautious recommendation of the windows.
fn stabilized(count: Count, policy: &Policy, history: &History, current: u32, now: Timestamp) -> Count {
    let window = |seconds_| history.recommended(now, seconds(seconds_)).chain([count.replicas]);
    let lowest = window(policy.behavior.scale_up.stabilization_window_seconds).min().unwrap_or(count.replicas);
    let highest = window(policy.behavior.scale_down.stabilization_window_seconds).max().unwrap_or(count.replicas);
    // A window does not turn one direction into the other.
    let stable = if count.replicas > current { lowest.max(current) } else { highest.min(current) };
    count.limit(stable, Limit::Stabilized)
}

/// At most the larger of `percent` and `workers` in each period.
fn per_period(count: Count, policy: &Policy, history: &History, current: u32, now: Timestamp) -> Count {
    let (up, down) = (&policy.behavior.scale_up, &policy.behavior.scale_down);
    if count.replicas > current {
        let (added, _) = history.changed(now, seconds(up.period_seconds));
        let start = current.saturating_sub(added);
        let most = start.saturating_add(up.workers.max(share(start, up.percent).ceil() as u32)).max(current);
        return count.limit(count.replicas.min(most), Limit::ScaleUpLimit);
    }
    let (_, removed) = history.changed(now, seconds(down.period_seconds));
    let start = current.saturating_add(removed);
    let fewest = start.saturating_sub(down.workers.max(share(start, down.percent).ceil() as u32)).min(current);
    count.limit(count.replicas.max(fewest), Limit::ScaleDownLimit)
}

fn share(count: u32, percent: u32) -> f64 {
    f64::from(count) * f64::from(percent) / 100.0 - 1e-9
}

/// What the state of the pods and of our estimate forbids.
fn held(count: Count, policy: &Policy, history: &History, workers: &Workers, now: Timestamp) -> Count {
    let current = workers.replicas;
    if count.replicas > current && workers.failing(now) {
        return count.limit(current, Limit::WorkersNotReady);
    }
    if count.replicas < current && workers.rolling_out {
        return count.limit(current, Limit::RolloutInProgress);
    }
    if count.replicas < current
        && history.sure_for(now) < seconds(policy.behavior.scale_down.stabilization_window_seconds)
    {
        return count.limit(current, Limit::Stabilized);
    }
    count
}
