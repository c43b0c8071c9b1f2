//! What a status says, from what was read. Pure: time is an argument.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use serde::Serialize;

use super::advice;
use super::read::{Section, Seen};
use super::{Plugin, PluginError};
use crate::crd::{AutoscalingStatus, MigrationsStatus, PulseIngest, Revision, RoleStatus, WorkersStatus};
use crate::pods;
use crate::status::find;

/// Events of the scaler.
const SCALING: [&str; 6] = ["ScaledUp", "ScaledDown", "WokeFromZero", "ScaledToZero", "ScalingHeld", "ScalingResumed"];
/// So many decisions, and so many kinds of warnings, are told.
const NEWEST: usize = 5;

/// How an object is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// In seconds.
    pub age: i64,
    /// Whether the operator has seen the newest spec.
    pub up_to_date: bool,
    /// Nothing is changed.
    pub paused: bool,
    /// As the operator wrote them.
    pub conditions: Vec<ConditionLine>,
    /// The API's pods.
    pub api: RoleStatus,
    /// The scheduler's pods.
    pub scheduler: RoleStatus,
    /// The workers' pods.
    pub workers: WorkersStatus,
    /// What runs.
    pub running: Option<Revision>,
    /// What should run.
    pub wanted: Option<Revision>,
    /// The schema.
    pub migrations: Option<MigrationsStatus>,
    /// The queue, and the last decision.
    pub autoscaling: Option<AutoscalingStatus>,
    /// What was decided before, the newest first.
    pub decisions: Section<Vec<EventLine>>,
    /// Messages of conditions that say that something failed.
    pub errors: Vec<String>,
    /// Warnings, by reason.
    pub warnings: Section<Vec<EventLine>>,
    /// Pods that are not as they should be.
    pub pods: Section<Vec<PodLine>>,
    /// What to do now.
    pub next_step: String,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConditionLine {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Since its status is so, in seconds.
    pub age: i64,
}

/// Events of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventLine {
    /// A word.
    pub reason: String,
    /// What the newest is about.
    pub object: String,
    /// What the newest says.
    pub message: String,
    /// How often.
    pub count: i64,
    /// Of the newest, in seconds.
    pub age: i64,
}

/// A pod that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodLine {
    /// Its name.
    pub name: String,
    /// How it is, and how it ended last.
    pub trouble: String,
    /// Of all of its containers.
    pub restarts: i32,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "as in the report")]
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
    /// How an object is.
    ///
    /// # Errors
    /// [`PluginError`] if the object cannot be read; what else cannot be read is told in its section.
    pub async fn status(&self, name: &str) -> Result<StatusReport, PluginError> {
        Ok(report(&self.see(name).await?, Timestamp::now()))
    }

    /// All objects: of the namespace, or of the cluster.
    ///
    /// # Errors
    /// [`PluginError`].
    pub async fn summaries(&self, everywhere: bool) -> Result<Vec<Summary>, PluginError> {
        let now = Timestamp::now();
        Ok(self.objects(everywhere).await?.iter().map(|object| summary(object, now)).collect())
    }
}

pub(super) fn report(seen: &Seen, now: Timestamp) -> StatusReport {
    let Seen { object, events, warnings, pods } = seen;
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
        lines.truncate(NEWEST);
        lines
    });
    StatusReport {
        namespace: object.namespace().unwrap_or_default(),
        age: age(object, now),
        up_to_date: object.metadata.generation == Some(status.observed_generation),
        paused: object.spec.paused,
        errors: errors(&conditions),
        conditions,
        next_step: advice::next_step(object, &status),
        api: status.api,
        scheduler: status.scheduler,
        workers: status.workers,
        running: status.active_revision,
        wanted: status.desired_revision,
        migrations: status.migrations,
        autoscaling: status.autoscaling,
        decisions,
        warnings: warnings.map(|events| grouped(&name, events, now)),
        pods: pods.map(|pods| pods.iter().filter_map(|pod| pod_line(pod, now)).collect()),
        name,
    }
}

pub(super) fn summary(object: &PulseIngest, now: Timestamp) -> Summary {
    let status = object.status.clone().unwrap_or_default();
    let ready = find(&status.conditions, "Ready");
    Summary {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        ready: ready.map_or("Unknown", |ready| &ready.status).to_owned(),
        reason: ready.map(|ready| ready.reason.clone()).unwrap_or_default(),
        age: age(object, now),
        next_step: advice::next_step(object, &status),
        version: status.active_revision.map(|revision| revision.version).unwrap_or_default(),
        api: status.api.summary,
        workers: status.workers.summary,
        backlog: status.autoscaling.and_then(|scaling| scaling.backlog),
    }
}

/// Each thing that failed once: what stalls it is often why it is not ready, too.
fn errors(conditions: &[ConditionLine]) -> Vec<String> {
    let failed = conditions.iter().filter(|condition| match condition.type_.as_str() {
        "Stalled" => condition.status == "True",
        "Available" | "QueueReachable" => condition.status == "False" && condition.reason != "Stopped",
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
    event.reason.as_deref().is_some_and(|reason| SCALING.contains(&reason))
}

/// Warnings about the object and what was made for it, one line per kind and reason, the newest first.
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
    lines.truncate(NEWEST);
    lines
}

/// The object itself, or a child by its name: `main-api…`, but not the object `main-api`.
fn is_about(event: &Event, name: &str) -> bool {
    let object = &event.involved_object;
    let about = object.name.as_deref().unwrap_or_default();
    if object.kind.as_deref() == Some("PulseIngest") {
        return about == name;
    }
    let child = about.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
    let component = child.map(|rest| rest.split('-').next().unwrap_or(rest));
    matches!(component, Some("api" | "worker" | "scheduler" | "migrate" | "plan" | "migration"))
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

/// A pod that does not start, does not get ready, or ends again and again; and one that ended badly.
fn pod_line(pod: &Pod, now: Timestamp) -> Option<PodLine> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Unknown");
    if phase == "Succeeded" || pods::is_ready(pod) {
        return None;
    }
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let restarts = statuses.iter().map(|status| status.restart_count).sum();
    let how = match pods::trouble(pod) {
        Some(trouble) => trouble,
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
    // A pod that was just made is no error yet.
    let is_new = last.is_none() && pods::trouble(pod).is_none() && since < 30;
    (!is_new).then(|| PodLine { name: pod.name_any(), trouble: how + &last.unwrap_or_default(), restarts })
}

fn age(object: &PulseIngest, now: Timestamp) -> i64 {
    object.metadata.creation_timestamp.as_ref().map_or(0, |time| seconds(time.0, now))
}

/// Clocks differ: never negative.
fn seconds(since: Timestamp, now: Timestamp) -> i64 {
    now.duration_since(since).as_secs().max(0)
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
