//! Concludes a reconcile: from what was seen, decided and done to the status, the Events and the memory.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use pulse_crd::names::Role;
use pulse_crd::{PulseIngest, PulseIngestStatus};

use crate::condition::{ConditionType, find};
use crate::decide::Decision;
use crate::desired;
use crate::done::Done;
use crate::events::{self, Event};
use crate::memory::Memory;
use crate::now::Now;
use crate::observed::{Observed, lacks_pods};
use crate::plan::ReconcilePlan;
use crate::seen::Seen;
use crate::status::{self, StatusInputs};
use crate::workers;

/// What a reconcile publishes.
pub struct Conclusion {
    /// The object as it was seen.
    pub cr: PulseIngest,
    /// Its new status.
    pub status: PulseIngestStatus,
    /// The Events for what has changed.
    pub events: Vec<Event>,
    /// The decisions for the console; `None` without a console.
    pub decisions: Option<ConfigMap>,
    /// Whether pods or the schema of a running instance are being replaced.
    pub is_rolling: bool,
    /// Whether that waits for other instances.
    pub is_queued: bool,
    /// Time until the next reconcile, if nothing triggers one before.
    pub next: Duration,
}

/// Concludes a reconcile that began at `now`. The memory is that for the next one.
pub fn conclude(seen: Seen, decision: Decision, done: Done, memory: &Memory, now: Now) -> (Conclusion, Memory) {
    let Seen { cr, mut observed, redis, served, settings, reads, .. } = seen;
    let Decision { mut plan, workers, missing_duration, missing_since, rollouts, scaler, .. } = decision;
    let Done { report, problem, scaled, memory: applied } = done;
    plan.hold_queued(&cr, &report.queued);
    observed.deployments.extend(report.deployments.into_iter().map(|(role, deployment)| (role, Arc::new(deployment))));
    let (scaling, scaler) =
        workers::report(&cr, &observed, workers.as_ref(), scaled, redis.as_deref(), scaler, now.clock);
    let status = served.as_stored(status::status(StatusInputs {
        cr: &cr,
        observed: &observed,
        plan: &plan,
        rollouts: &rollouts,
        scaling,
        unapplied: problem.or_else(|| memory.decisions.failure.clone()),
        missing_duration,
        pending: if cr.spec.paused { report.changes } else { Vec::new() },
        crd_outdated: served.condition(),
        held: report.held,
        now: now.clock,
    }));
    let mut events = events::transitions(&cr.status.clone().unwrap_or_default(), &status);
    events.extend(events::drift(&report.drifted));
    let is_stalled = find(&status.conditions, ConditionType::Stalled).is_some();
    let is_migrating = plan.migration.is_running() && !observed.deployments.is_empty();
    let applied = applied.pruned(now.instant);
    let wake = workers.and_then(|plan| time_until_wake(plan.decision.next_wake?, now.clock));
    let usual = if is_waiting(&observed, &plan) { settings.intervals.missing } else { settings.intervals.secrets };
    let conclusion = Conclusion {
        // A rollout that makes no progress lets the next one begin: one broken instance must not stop all others.
        is_rolling: !is_stalled
            && (is_migrating || Role::ALL.into_iter().any(|role| rollouts.is_rolling(&observed, role))),
        is_queued: !report.queued.is_empty(),
        decisions: has_console(&cr, &observed).then(|| desired::config_map(&cr, &status)),
        next: [applied.next_attempt(now.instant), wake].into_iter().flatten().fold(usual, Duration::min),
        status,
        events,
        cr,
    };
    let decisions = memory.decisions.clone();
    let memory = Memory {
        written: reads.written,
        applied,
        secrets: reads.secrets,
        job_rejections: reads.job_rejections,
        missing_since,
        rollouts,
        workers: scaler,
        decisions,
        failures: memory.failures,
        other_operator: None,
    };
    (conclusion, memory)
}

/// Whether something is waited for that no watch reports: a Secret, or an Event of a Job without pods.
fn is_waiting(observed: &Observed, plan: &ReconcilePlan) -> bool {
    let lacks_pods = observed.jobs.iter().any(|job| lacks_pods(job, observed));
    !plan.missing.is_empty() || !plan.unreadable.is_empty() || plan.migration.unended || lacks_pods
}

/// Whether a console shows the decisions. During a pause, only one that exists already.
fn has_console(cr: &PulseIngest, observed: &Observed) -> bool {
    cr.spec.console.enabled && (!cr.spec.paused || observed.deployments.contains_key(&Role::Console))
}

/// Time until the next wake-up. `None` for an overdue one: a pause or a limit suppresses it, so reconciling again at
/// once would change nothing.
fn time_until_wake(wake: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(wake.duration_since(now)).ok().filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overdue_wake_up_does_not_requeue_at_once() {
        let at = |second| Timestamp::from_second(second).expect("valid");
        assert_eq!(time_until_wake(at(70), at(60)), Some(Duration::from_secs(10)));
        assert_eq!(time_until_wake(at(60), at(60)), None);
        assert_eq!(time_until_wake(at(50), at(60)), None);
    }
}
