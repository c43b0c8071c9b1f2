//! The status report of an object, from what was read. Pure: the time is an argument.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use pulse_crd::names;
use pulse_crd::{AutoscalingStatus, MigrationsStatus, PulseIngest, Revision, RoleStatus, WorkersStatus};
use pulse_reconcile::condition::{ConditionStatus, ConditionType, find};
use pulse_reconcile::pods;
use serde::Serialize;

use crate::advice;
use crate::connection::{Plugin, PluginError};
use crate::read::{Section, StatusInput};

/// Reasons of Events about scaling.
const SCALING_REASONS: [&str; 6] =
    ["ScaledUp", "ScaledDown", "WokeFromZero", "ScaledToZero", "ScalingHeld", "ScalingResumed"];
/// Maximum number of decisions, and of groups of warnings, in a report.
const MAX_LINES: usize = 5;

/// The status of an object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// Name of the object.
    pub name: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Age of the object in seconds.
    pub age: i64,
    /// Whether the operator has observed the newest spec.
    pub up_to_date: bool,
    /// Whether the object is paused.
    pub paused: bool,
    /// Conditions as the operator wrote them.
    pub conditions: Vec<ConditionLine>,
    /// Numbers of API pods.
    pub api: RoleStatus,
    /// Numbers of scheduler pods.
    pub scheduler: RoleStatus,
    /// Numbers of console pods; none without a console.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console: Option<RoleStatus>,
    /// Numbers of worker pods.
    pub workers: WorkersStatus,
    /// The active revision.
    pub active: Option<Revision>,
    /// The desired revision.
    pub desired: Option<Revision>,
    /// State of the schema and its migrations.
    pub migrations: Option<MigrationsStatus>,
    /// Backlog, and the last scaling decision.
    pub autoscaling: Option<AutoscalingStatus>,
    /// Recent scaling decisions, newest first.
    pub decisions: Section<Vec<EventLine>>,
    /// Reasons and messages of conditions that report a failure.
    pub errors: Vec<String>,
    /// Warning Events, grouped by kind and reason, newest first.
    pub warnings: Section<Vec<EventLine>>,
    /// Pods with a problem.
    pub pods: Section<Vec<PodLine>>,
    /// The next step for the user.
    pub next_step: String,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConditionLine {
    /// Condition type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Reason in CamelCase.
    pub reason: String,
    /// Message for people.
    pub message: String,
    /// Time since the last transition, in seconds.
    pub age: i64,
}

/// One Event, or a group of Events with the same kind and reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventLine {
    /// Reason in CamelCase.
    pub reason: String,
    /// Kind and name of the object of the newest Event.
    pub object: String,
    /// Message of the newest Event.
    pub message: String,
    /// Number of occurrences.
    pub count: i64,
    /// Age of the newest Event in seconds.
    pub age: i64,
}

/// A pod with a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodLine {
    /// Name of the pod.
    pub name: String,
    /// Current problem, and the exit code and last line of the last termination.
    pub problem: String,
    /// Number of restarts of all containers.
    pub restarts: i32,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the same fields as in the report")]
pub struct Summary {
    pub namespace: String,
    pub name: String,
    pub ready: String,
    pub reason: String,
    pub version: String,
    pub api: String,
    pub workers: String,
    pub backlog: Option<i64>,
    pub age: i64,
    pub next_step: String,
}

impl Plugin {
    /// The status of an object.
    ///
    /// # Errors
    /// [`PluginError`] if the object cannot be read. Everything else that cannot be read has its error in its section.
    pub async fn status(&self, name: &str) -> Result<StatusReport, PluginError> {
        Ok(report(&self.read_status(name).await?, Timestamp::now()))
    }

    /// All objects of the namespace, or of the cluster.
    ///
    /// # Errors
    /// [`PluginError`] if the objects cannot be listed.
    pub async fn summaries(&self, everywhere: bool) -> Result<Vec<Summary>, PluginError> {
        let now = Timestamp::now();
        Ok(self.objects(everywhere).await?.iter().map(|object| summary(object, now)).collect())
    }
}

pub(crate) fn report(seen: &StatusInput, now: Timestamp) -> StatusReport {
    let StatusInput { object, events, warnings, pods } = seen;
    let status = object.status.clone().unwrap_or_default();
    let name = object.name_any();
    let conditions: Vec<ConditionLine> = status
        .conditions
        .iter()
        .map(|condition| ConditionLine {
            type_: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            age: seconds(condition.last_transition_time.0, now),
        })
        .collect();
    let decisions = events.map(|events| {
        let mut lines: Vec<EventLine> =
            events.iter().filter(|event| is_scaling(event)).map(|event| line(event, now)).collect();
        lines.sort_by_key(|line| line.age);
        lines.truncate(MAX_LINES);
        lines
    });
    StatusReport {
        namespace: names::namespace(object),
        age: age(object, now),
        up_to_date: object.metadata.generation == Some(status.observed_generation),
        paused: object.spec.paused,
        errors: errors(&conditions),
        conditions,
        next_step: advice::next_step(object, &status),
        api: status.api,
        scheduler: status.scheduler,
        console: status.console,
        workers: status.workers,
        active: status.active_revision,
        desired: status.desired_revision,
        migrations: status.migrations,
        autoscaling: status.autoscaling,
        decisions,
        warnings: warnings.map(|events| grouped(&name, events, now)),
        pods: pods.map(|pods| pods.iter().filter_map(|pod| pod_line(pod, now)).collect()),
        name,
    }
}

pub(crate) fn summary(object: &PulseIngest, now: Timestamp) -> Summary {
    let status = object.status.clone().unwrap_or_default();
    let ready = find(&status.conditions, ConditionType::Ready);
    Summary {
        namespace: names::namespace(object),
        name: object.name_any(),
        ready: ready.map_or(ConditionStatus::Unknown.as_str(), |ready| &ready.status).to_owned(),
        reason: ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
        age: age(object, now),
        next_step: advice::next_step(object, &status),
        version: status.active_revision.map(|revision| revision.version).unwrap_or_default(),
        api: status.api.summary,
        workers: status.workers.summary,
        backlog: status.autoscaling.and_then(|scaling| scaling.backlog),
    }
}

/// The failures, without duplicates: several conditions often have the same reason and message.
fn errors(conditions: &[ConditionLine]) -> Vec<String> {
    let failed = conditions.iter().filter(|condition| match condition.type_.as_str() {
        "Stalled" => condition.status == ConditionStatus::True,
        "Available" | "QueueReachable" => condition.status == ConditionStatus::False && condition.reason != "Stopped",
        "Migrated" => condition.reason == "MigrationFailed" || condition.reason == "MigrationPodNotStarting",
        "Ready" => condition.reason == "ReconcileFailed",
        "Reconciling" => condition.reason == "WaitingForReference",
        _ => false,
    });
    let mut errors: Vec<String> = Vec::new();
    for condition in failed {
        let error = format!("{}: {}", condition.reason, condition.message);
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
    errors
}

fn is_scaling(event: &Event) -> bool {
    event.reason.as_deref().is_some_and(|reason| SCALING_REASONS.contains(&reason))
}

/// Warnings about the object and its children, one line per kind and reason, newest first.
fn grouped(name: &str, events: &[Event], now: Timestamp) -> Vec<EventLine> {
    let mut groups: BTreeMap<(String, String), EventLine> = BTreeMap::new();
    for event in events.iter().filter(|event| is_about(event, name)) {
        let next = line(event, now);
        let key = (event.involved_object.kind.clone().unwrap_or_default(), next.reason.clone());
        match groups.get_mut(&key) {
            Some(group) => {
                let count = group.count + next.count;
                if next.age < group.age {
                    *group = next;
                }
                group.count = count;
            }
            None => drop(groups.insert(key, next)),
        }
    }
    let mut lines: Vec<EventLine> = groups.into_values().collect();
    lines.sort_by_key(|line| line.age);
    lines.truncate(MAX_LINES);
    lines
}

/// Whether an Event is about the object, or about a child by its name: `main-api…`, but not the object `main-api`.
fn is_about(event: &Event, name: &str) -> bool {
    let object = &event.involved_object;
    let about = object.name.as_deref().unwrap_or_default();
    if object.kind.as_deref() == Some("PulseIngest") {
        return about == name;
    }
    let child = about.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
    let component = child.map(|rest| rest.split('-').next().unwrap_or(rest));
    matches!(component, Some("api" | "worker" | "scheduler" | "console" | "migrate" | "plan" | "migration"))
}

fn line(event: &Event, now: Timestamp) -> EventLine {
    let series = event.series.as_ref();
    let last = series.and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let at = last
        .or(event.last_timestamp.as_ref().map(|time| time.0))
        .or(event.event_time.as_ref().map(|time| time.0))
        .or(event.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let object = &event.involved_object;
    EventLine {
        reason: event.reason.clone().unwrap_or_default(),
        object: format!("{} {}", object.kind.as_deref().unwrap_or(""), object.name.as_deref().unwrap_or("")),
        message: event.message.clone().unwrap_or_default(),
        count: series.and_then(|series| series.count).or(event.count).unwrap_or(1).into(),
        age: at.map_or(0, |at| seconds(at, now)),
    }
}

/// The line of a pod that does not start, is not ready, is crash looping, or has failed; `None` for any other pod.
fn pod_line(pod: &Pod, now: Timestamp) -> Option<PodLine> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
    if phase == "Succeeded" || pods::is_ready(pod) {
        return None;
    }
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let restarts = statuses.iter().map(|status| status.restart_count).sum();
    let state = match pods::startup_failure(pod) {
        Some(failure) => failure,
        None if pods::is_terminating(pod) && phase == "Running" => return None,
        None if phase == "Running" => "not ready".to_owned(),
        None => phase.to_owned(),
    };
    let ended = statuses.iter().find_map(|status| {
        let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
        now.or_else(|| status.last_state.as_ref()?.terminated.as_ref())
    });
    let last = ended.map(|ended| {
        let reason = ended.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let line = ended.message.as_deref().and_then(|text| text.lines().rfind(|line| !line.trim().is_empty()));
        let line = line.map(|line| format!(": {line}")).unwrap_or_default();
        format!("; last ended with exit code {}{reason}{line}", ended.exit_code)
    });
    let since = pod.metadata.creation_timestamp.as_ref().map_or(0, |time| seconds(time.0, now));
    // A pod that was just created is not an error yet.
    let is_new = last.is_none() && pods::startup_failure(pod).is_none() && since < 30;
    (!is_new).then(|| PodLine { name: pod.name_any(), problem: state + &last.unwrap_or_default(), restarts })
}

fn age(object: &PulseIngest, now: Timestamp) -> i64 {
    object.metadata.creation_timestamp.as_ref().map_or(0, |time| seconds(time.0, now))
}

/// Seconds between two times; never negative, because clocks differ.
fn seconds(since: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(since).as_secs().max(0)
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
