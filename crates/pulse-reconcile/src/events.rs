//! Derives Kubernetes Events from the difference between two statuses, one per transition. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use pulse_crd::{MigrationState, PulseIngestStatus};

use crate::condition::ConditionStatus::{False, True};
use crate::condition::{ConditionStatus, ConditionType, find};

/// An Event about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether it needs attention.
    pub is_warning: bool,
    /// Reason, in CamelCase.
    pub reason: String,
    /// What the operator did, in CamelCase.
    pub action: String,
    /// What happened, as one sentence of at most 1 KiB.
    pub note: String,
}

/// Returns the Events for the change from `old` to `new`.
pub fn transitions(old: &PulseIngestStatus, new: &PulseIngestStatus) -> Vec<Event> {
    let mut events = Vec::new();
    conditions(old, new, &mut events);
    migrations(old, new, &mut events);
    if let (Some(before), Some(now)) = (&old.active_revision, &new.active_revision)
        && before != now
    {
        events.push(normal(
            "RolloutStarted",
            "Roll",
            format!("rollout from image {} to image {}", before.image, now.image),
        ));
    }
    decision(old, new, &mut events);
    events
}

/// Returns the Event for reverted changes of child objects, if there were any.
pub fn drift(objects: &[String]) -> Option<Event> {
    (!objects.is_empty()).then(|| {
        normal("DriftCorrected", "Apply", format!("reverted changes that others made to: {}", objects.join(", ")))
    })
}

/// The Event for an object that this version cannot read.
pub fn unreadable(error: &str) -> Event {
    let version = env!("CARGO_PKG_VERSION");
    let note =
        format!("the operator {version} cannot read the object and leaves it as it is: {error}; upgrade the operator");
    warning("ObjectUnreadable", "Read", note)
}

/// Returns the Event for an object that another operator reconciles.
pub fn not_reconciled(explanation: &str) -> Event {
    warning("NotReconciled", "Leave", explanation.to_owned())
}

fn conditions(old: &PulseIngestStatus, new: &PulseIngestStatus, events: &mut Vec<Event>) {
    let pair = |name| (find(&old.conditions, name), find(&new.conditions, name));
    let is = |condition: Option<&Condition>, status: ConditionStatus| {
        condition.is_some_and(|condition| condition.status == status)
    };
    let (before, after) = pair(ConditionType::Stalled);
    if let Some(stalled) = after
        && before.map(|condition| &condition.reason) != Some(&stalled.reason)
    {
        let reason = if stalled.reason == "MigrationFailed" { "MigrationBlocked" } else { &stalled.reason };
        events.push(warning(reason, "Reconcile", stalled.message.clone()));
    }
    let (before, after) = pair(ConditionType::CrdOutdated);
    if let Some(outdated) = after.filter(|_| before.is_none()) {
        events.push(warning("CRDOutdated", "Reconcile", outdated.message.clone()));
    }
    let (before, after) = pair(ConditionType::Ready);
    if let Some(ready) = after.filter(|_| !is(before, True) && is(after, True)) {
        events.push(normal("Ready", "Reconcile", ready.message.clone()));
    }
    let (before, after) = pair(ConditionType::Reconciling);
    if let Some(waiting) = after.filter(|condition| condition.reason == "WaitingForReference")
        && before.map(|condition| &condition.reason) != Some(&waiting.reason)
    {
        events.push(warning("ReferenceMissing", "Wait", waiting.message.clone()));
    }
    if let Some(contested) = after.filter(|condition| condition.reason == "Contested")
        && before.map(|condition| &condition.reason) != Some(&contested.reason)
    {
        events.push(warning("Contested", "Apply", contested.message.clone()));
    }
    let (before, after) = pair(ConditionType::ScalingActive);
    if let Some(active) = after.filter(|condition| condition.reason == "MetricsUnavailable")
        && before.map(|condition| &condition.reason) != Some(&active.reason)
    {
        events.push(warning("ScalingHeld", "Hold", active.message.clone()));
    }
    if before.is_some_and(|condition| condition.reason == "MetricsUnavailable") && is(after, True) {
        events.push(normal("ScalingResumed", "Scale", "the backlog is known again: scaling continues".into()));
    }
    let (before, after) = pair(ConditionType::BacklogWithinTarget);
    if let Some(missed) = after.filter(|_| !is(before, False) && is(after, False)) {
        events.push(warning("BacklogTargetMissed", "Observe", missed.message.clone()));
    }
    if let Some(met) = after.filter(|_| is(before, False) && is(after, True)) {
        events.push(normal("BacklogTargetMet", "Observe", met.message.clone()));
    }
}

fn migrations(old: &PulseIngestStatus, new: &PulseIngestStatus, events: &mut Vec<Event>) {
    let Some(now) = &new.migrations else { return };
    let before = old.migrations.clone().unwrap_or_default();
    if before.state == now.state && before.job_name == now.job_name {
        return;
    }
    let name = &now.job_name;
    events.extend(match now.state {
        MigrationState::Running => {
            Some(normal("MigrationStarted", "Migrate", format!("Job {name} migrates the schema")))
        }
        MigrationState::Planned => Some(normal("MigrationPlanned", "Plan", now.message.clone())),
        MigrationState::Done if !name.is_empty() => {
            let version =
                now.schema_version.map_or_else(String::new, |version| format!(": the schema has version {version}"));
            Some(normal("MigrationSucceeded", "Migrate", format!("Job {name} succeeded{version}")))
        }
        MigrationState::Failed => {
            Some(warning("MigrationFailed", "Migrate", format!("Job {name} failed: {}", now.message)))
        }
        MigrationState::Done | MigrationState::Planning | MigrationState::Unknown => None,
    });
}

fn decision(old: &PulseIngestStatus, new: &PulseIngestStatus, events: &mut Vec<Event>) {
    let last =
        |status: &PulseIngestStatus| status.autoscaling.as_ref().and_then(|scaling| scaling.last_decision.clone());
    let Some(now) = last(new).filter(|now| now.from != now.to && last(old).as_ref() != Some(now)) else { return };
    let reason = match (now.from, now.to) {
        (0, _) => "WokeFromZero",
        (_, 0) => "ScaledToZero",
        (from, to) if to > from => "ScaledUp",
        _ => "ScaledDown",
    };
    // The recorder merges Events with the same reason and action. The numbers keep two decisions apart.
    let action = format!("Scale{}To{}", now.from, now.to);
    events.push(normal(reason, &action, now.message));
}

fn normal(reason: &str, action: &str, note: String) -> Event {
    event(false, reason, action, note)
}

fn warning(reason: &str, action: &str, note: String) -> Event {
    event(true, reason, action, note)
}

fn event(is_warning: bool, reason: &str, action: &str, note: String) -> Event {
    // The API server rejects notes of more than 1 KiB.
    let note = note[..note.floor_char_boundary(1024)].to_owned();
    Event { is_warning, reason: reason.to_owned(), action: action.to_owned(), note }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_note_is_cut_to_1024_bytes_at_a_character_boundary() {
        for text in ["x", "é", "数"] {
            let note = drift(&[text.repeat(2000)]).expect("an Event").note;
            assert!((1020..=1024).contains(&note.len()), "{}", note.len());
        }
    }
}
