//! What to do next, by condition and reason: the rows of OPERATIONS' table. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::crd::{PulseIngest, PulseIngestStatus};

/// What is a problem, the most important first.
const PROBLEMS: [&str; 9] = [
    "Stalled=True",
    "Migrated=False",
    "Reconciling=True",
    "Ready=False",
    "Available=False",
    "QueueReachable=False",
    "ScalingActive=False",
    "ScalingLimited=True",
    "BacklogWithinTarget=False",
];

/// What to do for a reason of a condition; `NAME` stands for the object. None if there is nothing to do.
pub(super) fn advice(condition: &str, reason: &str) -> Option<&'static str> {
    Some(match (condition, reason) {
        ("Ready=False", "RolloutInProgress") => "wait",
        ("Ready=False", "Paused") => "`kubectl pulse plan NAME`, then `kubectl pulse resume NAME`",
        ("Ready=False", "ReconcileFailed") => "read the message",
        ("Available=False", "NoApiPods") => "look at the API's pods",
        ("Migrated=False", "MigrationPlanning" | "MigrationRunning") => "wait",
        ("Migrated=False", "PlanNeedsApproval") => "read the plan, then `kubectl pulse approve NAME`",
        ("Migrated=False", "ManualMigrationNeeded") => "run `pulse migrate` with the new image",
        ("Migrated=False", "MigrationPodNotStarting") => "fix the image, its pull secret, or the quota",
        ("Migrated=False", "MigrationFailed") => "see the exit codes; the old version goes on",
        ("Migrated=False" | "Reconciling=True", "WaitingForReference") | ("Stalled=True", "ReferenceMissing") => {
            "create the Secret"
        }
        ("Stalled=True", "NameConflict") => "rename or delete that object",
        ("Stalled=True", "RolloutStuck") => "look at the new pods",
        ("QueueReachable=False", "ConnectionFailed" | "TimedOut" | "AuthFailed" | "TlsFailed" | "WrongType") => {
            "start Redis, or correct its Secret or its CA"
        }
        ("ScalingActive=False", "MetricsUnavailable") => "see QueueReachable; a scheduler has to run",
        ("ScalingLimited=True", "TooManyReplicas" | "TooFewReplicas") => "change the bound, if it should not hold",
        ("ScalingLimited=True", "ScaleUpLimit") => "wait",
        ("ScalingLimited=True", "DatabaseConnectionBudget") => {
            "raise `database.maxConnectionsTotal` with PostgreSQL's own limit"
        }
        ("ScalingLimited=True", "WorkersNotReady") => "look at their pods",
        ("BacklogWithinTarget=False", "TooOld") => "more workers, or a faster step",
        _ => return None,
    })
}

/// The one thing to do next.
pub(super) fn next_step(cr: &PulseIngest, status: &PulseIngestStatus) -> String {
    let name = cr.metadata.name.as_deref().unwrap_or_default();
    if status.conditions.is_empty() {
        return "no operator has looked at it yet: start one for this namespace; `pulse check --pre` says what is missing"
            .into();
    }
    if cr.metadata.generation.is_some_and(|generation| generation > status.observed_generation) {
        return "the operator has not seen the newest spec yet: wait, and see that it runs".into();
    }
    for problem in PROBLEMS {
        let is_it = |found: &&Condition| format!("{}={}", found.type_, found.status) == problem;
        let Some(found) = status.conditions.iter().find(is_it) else { continue };
        if let Some(advice) = advice(problem, &found.reason) {
            return format!("{} ({}: {})", advice.replace("NAME", name), found.reason, found.message);
        }
    }
    "nothing to do".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table: condition with its status, reasons, what to do.
    fn rows() -> Vec<(String, Vec<String>, String)> {
        let text = include_str!("../../../../OPERATIONS.md");
        let table = text.split("| condition | reason |").nth(1).and_then(|rest| rest.split("\n\n").next());
        let mut condition = String::new();
        let mut rows = Vec::new();
        for line in table.expect("a table").lines().skip(2) {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, of, reasons, _, to_do, ..] = cells.as_slice() else { panic!("{line}") };
            if !of.is_empty() {
                condition = (*of).to_owned();
            }
            let reasons = reasons.split(',').map(|reason| reason.trim().to_owned()).collect();
            rows.push((condition.clone(), reasons, (*to_do).to_owned()));
        }
        rows
    }

    #[test]
    fn the_next_step_is_what_operations_says() {
        let rows = rows();
        assert!(rows.len() > 20, "{rows:?}");
        for (condition, reasons, to_do) in &rows {
            for reason in reasons {
                assert_eq!(advice(condition, reason).unwrap_or_default(), to_do, "{condition} {reason}");
            }
        }
    }
}
