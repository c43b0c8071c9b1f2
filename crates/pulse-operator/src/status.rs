//! The status, from what was found and done. Pure; it is written only if it says something new.
//!
//! Conditions follow kstatus: `Reconciling` and `Stalled` are there only when true, so that `kubectl wait` and Helm wait
//! for the right thing.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use crate::crd::{AutoscalingStatus, PendingChange, PulseIngest, PulseIngestStatus, RoleStatus, WorkersStatus};
use crate::desired;
use crate::migration::Waiting;
use crate::names::{self, Role};
use crate::observe::Observed;
use crate::plan::ReconcilePlan;
use crate::pods;

/// How long a reference may be missing before somebody has to look.
pub const REFERENCE_PATIENCE: Duration = Duration::from_secs(600);

/// A condition before it has times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionState {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// A word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl ConditionState {
    /// Puts one together.
    pub fn new(status: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { status, reason: reason.to_owned(), message: message.into() }
    }

    /// That of a condition.
    pub fn of(condition: &Condition) -> Self {
        let known = ["True", "False"].into_iter().find(|status| *status == condition.status);
        Self::new(known.unwrap_or("Unknown"), &condition.reason, &condition.message)
    }
}

/// What the scaler says of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScalingReport {
    /// For the status.
    pub status: Option<AutoscalingStatus>,
    /// `QueueReachable`, `ScalingActive`, `ScalingLimited`, `BacklogWithinTarget`.
    pub conditions: Vec<(&'static str, ConditionState)>,
}

/// What kept the round from doing all that it wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconcileError {
    /// An object of that name belongs to somebody else.
    NameConflict(String),
    /// Anything that may pass by itself.
    Error(String),
}

/// What the status is made from.
pub struct Findings<'a> {
    /// The object, with its last status.
    pub cr: &'a PulseIngest,
    /// What there is.
    pub observed: &'a Observed,
    /// What was decided.
    pub plan: &'a ReconcilePlan,
    /// How the number of workers came about.
    pub scaling: ScalingReport,
    /// What went wrong.
    pub obstacle: Option<ReconcileError>,
    /// For how long a reference has been missing.
    pub missing_for: Option<Duration>,
    /// What waits.
    pub pending: Vec<PendingChange>,
    /// Now.
    pub now: Timestamp,
}

/// How a Deployment's rollout is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rollout {
    Done,
    Going(String),
    Stuck(String),
}

/// Makes the status.
pub fn status(findings: Findings<'_>) -> PulseIngestStatus {
    let Findings { cr, observed, plan, scaling, obstacle, missing_for, pending, now } = findings;
    let old = cr.status.clone().unwrap_or_default();
    let mut states = core_states(cr, observed, plan, obstacle.as_ref(), missing_for, &pending);
    states.extend(scaling.conditions);
    let conditions = states
        .into_iter()
        .map(|(name, state)| condition(name, state, &old.conditions, cr.metadata.generation, now))
        .collect();
    PulseIngestStatus {
        observed_generation: cr.metadata.generation.unwrap_or_default(),
        conditions,
        // What runs: a pause keeps the next one from it though its schema is there.
        active_revision: old.active_revision.clone().filter(|_| cr.spec.paused).or_else(|| plan.active.clone()),
        desired_revision: Some(plan.wanted.clone()),
        api: role_status(observed, Role::Api),
        scheduler: role_status(observed, Role::Scheduler),
        workers: workers_status(cr, observed),
        autoscaling: scaling.status,
        migrations: Some(plan.migration.status.clone()),
        pending_changes: pending,
    }
}

fn core_states(
    cr: &PulseIngest,
    observed: &Observed,
    plan: &ReconcilePlan,
    obstacle: Option<&ReconcileError>,
    missing_for: Option<Duration>,
    pending: &[PendingChange],
) -> Vec<(&'static str, ConditionState)> {
    let available = available(cr, observed);
    let migrated = migrated(plan);
    let rollout = rollout(cr, observed);
    // Why it is not ready, and whether time alone may help.
    let problem: Option<(ConditionState, bool)> = first([
        obstacle.map(|obstacle| match obstacle {
            ReconcileError::NameConflict(message) => (ConditionState::new("False", "NameConflict", message), true),
            ReconcileError::Error(message) => (ConditionState::new("False", "ReconcileFailed", message), false),
        }),
        (!plan.missing.is_empty()).then(|| {
            let late = missing_for.is_some_and(|time| time >= REFERENCE_PATIENCE);
            let reason = if late { "ReferenceMissing" } else { "WaitingForReference" };
            (ConditionState::new("False", reason, plan.missing.join("; ")), late)
        }),
        plan.migration.waiting.as_ref().map(|waiting| {
            (ConditionState::new("False", waiting.reason, waiting_message(plan, waiting)), waiting.needs_human)
        }),
        (cr.spec.paused && !pending.is_empty()).then(|| {
            (ConditionState::new("False", "Paused", format!("paused with {} changes pending", pending.len())), false)
        }),
        match rollout {
            Rollout::Done => None,
            Rollout::Going(message) => Some((ConditionState::new("False", "RolloutInProgress", message), false)),
            Rollout::Stuck(message) => Some((ConditionState::new("False", "RolloutStuck", message), true)),
        },
    ]);
    let ready = match &problem {
        Some((state, _)) => state.clone(),
        None if cr.spec.paused => ConditionState::new("True", "Paused", "paused, and as the spec says"),
        None if cr.spec.stopped => ConditionState::new("True", "Stopped", "every role is at zero, as the spec says"),
        None => ConditionState::new("True", "AsExpected", format!("version {} runs", plan.wanted.version)),
    };
    let mut states = vec![("Ready", ready), ("Available", available), ("Migrated", migrated)];
    match problem {
        Some((state, true)) => states.push(("Stalled", ConditionState { status: "True", ..state })),
        // While it is paused, nothing goes on.
        Some((state, false)) if !cr.spec.paused => {
            states.push(("Reconciling", ConditionState { status: "True", ..state }))
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
        return ConditionState::new("True", "MinimumAvailable", "at least one API pod is ready");
    }
    let reason = if cr.spec.stopped { "Stopped" } else { "NoApiPods" };
    let trouble = observed.pods.get(&Role::Api).into_iter().flatten().find_map(|pod| pods::trouble(pod));
    ConditionState::new("False", reason, trouble.unwrap_or_else(|| "no API pod is ready".into()))
}

fn migrated(plan: &ReconcilePlan) -> ConditionState {
    match &plan.migration.waiting {
        Some(waiting) => ConditionState::new("False", waiting.reason, waiting_message(plan, waiting)),
        None => match plan.migration.status.ahead {
            Some(ahead) => ConditionState::new(
                "True",
                "SchemaAheadCompatible",
                format!("the schema has {ahead} newer migrations, all of them additive"),
            ),
            None => {
                ConditionState::new("True", "UpToDate", format!("the schema is as {} needs it", plan.wanted.version))
            }
        },
    }
}

/// With why a Secret cannot be read, if that is what is waited for: a missing right passes by no waiting.
fn waiting_message(plan: &ReconcilePlan, waiting: &Waiting) -> String {
    match plan.unreadable.as_slice() {
        unreadable if waiting.reason == "WaitingForReference" && !unreadable.is_empty() => unreadable.join("; "),
        _ => waiting.message.clone(),
    }
}

fn rollout(cr: &PulseIngest, observed: &Observed) -> Rollout {
    if observed.deployments.len() < Role::ALL.len() {
        return Rollout::Going("not every Deployment exists yet".into());
    }
    let mut going = Rollout::Done;
    for (role, deployment) in &observed.deployments {
        let now = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let wanted = if cr.spec.stopped { Some(0) } else { desired::replicas(cr, *role) };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != now) {
            going = Rollout::Going(format!("{} goes from {now} to {wanted} pods", deployment.name_any()));
            continue;
        }
        match deployment_rollout(*role, deployment) {
            Rollout::Done => {}
            stuck @ Rollout::Stuck(_) => return stuck,
            still => going = still,
        }
    }
    going
}

/// As `kubectl rollout status` sees it. Workers that are only being scaled are no rollout.
fn deployment_rollout(role: Role, deployment: &Deployment) -> Rollout {
    let name = deployment.name_any();
    let Some(status) = &deployment.status else { return Rollout::Going(format!("{name} is new")) };
    // What it says about an earlier spec says nothing about this one.
    if status.observed_generation < deployment.metadata.generation {
        return Rollout::Going(format!("{name} was just changed"));
    }
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let updated = status.updated_replicas.unwrap_or(0);
    let total = status.replicas.unwrap_or(0);
    let ready = status.ready_replicas.unwrap_or(0);
    let stuck = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.reason.as_deref() == Some("ProgressDeadlineExceeded"));
    if let Some(condition) = stuck.filter(|_| updated < wanted || ready < wanted) {
        return Rollout::Stuck(format!("{name}: {}", condition.message.as_deref().unwrap_or("it makes no progress")));
    }
    let old = total - updated;
    let scaling = role == Role::Worker && old == 0 && ready > 0;
    if old > 0 || (!scaling && (updated < wanted || ready < wanted)) {
        return Rollout::Going(format!("{name}: {ready} of {wanted} pods are ready, {updated} are new, {old} are old"));
    }
    Rollout::Done
}

/// Whether a role's pods are being replaced.
pub fn is_rolling(observed: &Observed, role: Role) -> bool {
    observed.deployments.get(&role).is_some_and(|deployment| deployment_rollout(role, deployment) != Rollout::Done)
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

/// Keeps the time of the last change of `status`.
fn condition(
    name: &str,
    state: ConditionState,
    old: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Condition {
    let ConditionState { status, reason, message } = state;
    let before = old.iter().find(|condition| condition.type_ == name && condition.status == status);
    Condition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason,
        message: message.chars().take(4000).collect(),
        last_transition_time: before.map_or_else(
            // Whole seconds: the API server keeps no more.
            || Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
            |condition| condition.last_transition_time.clone(),
        ),
        observed_generation: generation,
    }
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], name: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == name)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
