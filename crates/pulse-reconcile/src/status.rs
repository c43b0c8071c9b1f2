//! Computes the status from what was observed and done. Pure; the caller writes the status only if it has changed.
//!
//! The conditions follow kstatus: `Reconciling` and `Stalled` are only present while they are true, so `kubectl wait`
//! and Helm wait correctly.

use std::time::Duration;

use jiff::Timestamp;
use kube_core::ResourceExt;
use pulse_crd::names::{self, Role};
use pulse_crd::{AutoscalingStatus, PendingChange, PulseIngest, PulseIngestStatus, RoleStatus, WorkersStatus};

use crate::condition::ConditionStatus::{False, True};
use crate::condition::{ConditionState, ConditionType, condition};
use crate::error::ReconcileError;
use crate::migration::{MigrationWait, NEEDS_APPROVAL};
use crate::observed::Observed;
use crate::plan::ReconcilePlan;
use crate::pods;
use crate::rollout::{self, Progress, Rollouts};

/// Time after which a missing reference or approval is reported as `Stalled`, because the user has to act. Until then it
/// is `Reconciling`: tools that wait for an object give up on a stalled one, and roll it back.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The scaler's part of the status.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScalingReport {
    /// `status.autoscaling`.
    pub status: Option<AutoscalingStatus>,
    /// The conditions `QueueReachable`, `ScalingActive`, `ScalingLimited` and `BacklogWithinTarget`.
    pub conditions: Vec<(ConditionType, ConditionState)>,
}

/// Inputs of [`status`].
pub struct StatusInputs<'a> {
    /// The object, with its previous status.
    pub cr: &'a PulseIngest,
    /// The observed state of the cluster.
    pub observed: &'a Observed,
    /// The plan of this reconcile.
    pub plan: &'a ReconcilePlan,
    /// The rollouts that were complete before.
    pub rollouts: &'a Rollouts,
    /// The scaler's part of the status.
    pub scaling: ScalingReport,
    /// What kept this reconcile from applying everything.
    pub unapplied: Option<ReconcileError>,
    /// Time for which a reference has been missing.
    pub missing_duration: Option<Duration>,
    /// Changes that were not made because reconciliation is paused.
    pub pending: Vec<PendingChange>,
    /// `CRDOutdated`, while it is true.
    pub crd_outdated: Option<(ConditionType, ConditionState)>,
    /// Names of Deployments whose change has to wait, to stay within the budget of connections.
    pub held: Vec<String>,
    /// The current time.
    pub now: Timestamp,
}

/// Returns the new status.
pub fn status(inputs: StatusInputs<'_>) -> PulseIngestStatus {
    let StatusInputs {
        cr,
        observed,
        plan,
        rollouts,
        scaling,
        unapplied,
        missing_duration,
        pending,
        crd_outdated,
        held,
        now,
    } = inputs;
    let old = cr.status.clone().unwrap_or_default();
    let waiting = approval_duration(plan, now);
    let progress = rollout::progress(cr, observed, rollouts, &held, now);
    let problem = problem(cr, plan, unapplied.as_ref(), missing_duration, waiting, &pending, progress);
    let mut states = core_states(cr, observed, plan, problem);
    states.extend(scaling.conditions);
    states.extend(crd_outdated);
    let conditions = states
        .into_iter()
        .map(|(name, state)| condition(name, state, &old.conditions, cr.metadata.generation, now))
        .collect();
    PulseIngestStatus {
        observed_generation: cr.metadata.generation.unwrap_or_default(),
        conditions,
        // A pause keeps the previous revision active, also after the next one has been migrated.
        active_revision: old.active_revision.clone().filter(|_| cr.spec.paused).or_else(|| plan.active.clone()),
        desired_revision: Some(plan.desired.clone()),
        api: role_status(observed, Role::Api),
        scheduler: role_status(observed, Role::Scheduler),
        console: cr.spec.console.enabled.then(|| role_status(observed, Role::Console)),
        workers: workers_status(cr, observed),
        autoscaling: scaling.status,
        migrations: Some(plan.migration.status.clone()),
        pending_changes: pending,
        operator: old.operator,
    }
}

/// Why the object is not ready, and whether it is stalled: time alone will not help.
type Problem = (ConditionState, bool);

/// The first thing that keeps the object from being ready.
fn problem(
    cr: &PulseIngest,
    plan: &ReconcilePlan,
    unapplied: Option<&ReconcileError>,
    missing_duration: Option<Duration>,
    approval_duration: Duration,
    pending: &[PendingChange],
    progress: Progress,
) -> Option<Problem> {
    first([
        unapplied.map(|unapplied| {
            (ConditionState::new(False, unapplied.reason(), unapplied.to_string()), unapplied.needs_action())
        }),
        (!plan.missing.is_empty()).then(|| {
            let overdue = missing_duration.is_some_and(|time| time >= PATIENCE);
            let reason = if overdue { "ReferenceMissing" } else { "WaitingForReference" };
            let message = format!("{}: create what is missing or correct the reference", plan.missing.join("; "));
            (ConditionState::new(False, reason, message), overdue)
        }),
        plan.migration.waiting.as_ref().map(|waiting| {
            let is_patient = waiting.reason == NEEDS_APPROVAL && approval_duration < PATIENCE;
            let state = ConditionState::new(False, waiting.reason, waiting_message(plan, waiting));
            (state, waiting.needs_action && !is_patient)
        }),
        (cr.spec.paused && !pending.is_empty()).then(|| {
            let message = format!(
                "reconciliation is paused, pending changes: {}; set paused to false to apply them",
                pending.len()
            );
            (ConditionState::new(False, "Paused", message), false)
        }),
        match progress {
            Progress::Done => None,
            Progress::Unfinished(reason, message) => Some((ConditionState::new(False, reason, message), false)),
            Progress::Stuck(message) => Some((ConditionState::new(False, "RolloutStuck", message), true)),
        },
    ])
}

/// Time for which the plan has waited for its approval.
fn approval_duration(plan: &ReconcilePlan, now: Timestamp) -> Duration {
    let planned = plan.migration.status.finished_at.as_ref();
    planned.and_then(|planned| Duration::try_from(now.duration_since(planned.0)).ok()).unwrap_or_default()
}

fn core_states(
    cr: &PulseIngest,
    observed: &Observed,
    plan: &ReconcilePlan,
    problem: Option<Problem>,
) -> Vec<(ConditionType, ConditionState)> {
    let ready = match &problem {
        Some((state, _)) => state.clone(),
        None if cr.spec.paused => {
            ConditionState::new(True, "Paused", "reconciliation is paused, and no changes are pending")
        }
        None if cr.spec.stopped => {
            ConditionState::new(True, "Stopped", "every role is scaled to zero, because stopped is true")
        }
        None => ConditionState::new(True, "AsExpected", format!("version {} is running", plan.desired.version)),
    };
    let mut states = vec![
        (ConditionType::Ready, ready),
        (ConditionType::Available, available(cr, observed)),
        (ConditionType::Migrated, migrated(plan)),
    ];
    match problem {
        Some((state, true)) => states.push((ConditionType::Stalled, ConditionState { status: True, ..state })),
        // A paused object makes no progress.
        Some((state, false)) if !cr.spec.paused => {
            states.push((ConditionType::Reconciling, ConditionState { status: True, ..state }))
        }
        _ => {}
    }
    states
}

fn first<T, const N: usize>(options: [Option<T>; N]) -> Option<T> {
    options.into_iter().flatten().next()
}

fn available(cr: &PulseIngest, observed: &Observed) -> ConditionState {
    let ready = role_status(observed, Role::Api).ready;
    if ready > 0 {
        return ConditionState::new(True, "MinimumAvailable", "at least one API pod is ready");
    }
    let reason = if cr.spec.stopped { "Stopped" } else { "NoApiPods" };
    let failure = observed.pods.get(&Role::Api).into_iter().flatten().find_map(|pod| pods::explained_failure(pod));
    let failure = failure.or_else(|| rollout::rejection(observed, Role::Api));
    ConditionState::new(False, reason, failure.unwrap_or_else(|| "no API pod is ready".into()))
}

fn migrated(plan: &ReconcilePlan) -> ConditionState {
    match &plan.migration.waiting {
        Some(waiting) => ConditionState::new(False, waiting.reason, waiting_message(plan, waiting)),
        None => match plan.migration.status.ahead {
            Some(ahead) => ConditionState::new(
                True,
                "SchemaAheadCompatible",
                format!("the schema is ahead by {ahead} additive migrations, with which this version can run"),
            ),
            None => ConditionState::new(
                True,
                "UpToDate",
                format!("the schema is up to date for version {}", plan.desired.version),
            ),
        },
    }
}

/// Prefers the error of an unreadable Secret, such as a missing permission, which waiting does not fix.
fn waiting_message(plan: &ReconcilePlan, waiting: &MigrationWait) -> String {
    match plan.unreadable.as_slice() {
        unreadable if waiting.reason == "WaitingForReference" && !unreadable.is_empty() => unreadable.join("; "),
        _ => waiting.message.clone(),
    }
}

fn role_status(observed: &Observed, role: Role) -> RoleStatus {
    let Some(deployment) = observed.deployments.get(&role) else { return RoleStatus::default() };
    let desired = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let status = deployment.status.as_ref();
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or(0);
    let updated = status.and_then(|status| status.updated_replicas).unwrap_or(0);
    RoleStatus { ready, desired, updated, summary: format!("{ready}/{desired}") }
}

fn workers_status(cr: &PulseIngest, observed: &Observed) -> WorkersStatus {
    let RoleStatus { ready, desired, updated, summary } = role_status(observed, Role::Worker);
    let deployment = observed.deployments.get(&Role::Worker);
    let replicas = deployment.and_then(|found| found.status.as_ref()?.replicas).unwrap_or(0);
    let pods = observed.pods.get(&Role::Worker);
    let terminating = pods.into_iter().flatten().filter(|pod| pods::is_terminating(pod)).count();
    WorkersStatus {
        replicas,
        ready,
        desired,
        updated,
        terminating: i32::try_from(terminating).unwrap_or(i32::MAX),
        summary,
        selector: names::selector_text(&cr.name_any(), Role::Worker.component()),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
