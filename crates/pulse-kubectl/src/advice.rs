//! The next step for each condition and reason, as in the table of docs/reference/conditions.md. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use pulse_crd::{PulseIngest, PulseIngestStatus};

/// Conditions that are a problem, the most important first.
const PROBLEMS: [&str; 10] = [
    "Stalled=True",
    "Migrated=False",
    "Reconciling=True",
    "Ready=False",
    "Available=False",
    "CRDOutdated=True",
    "QueueReachable=False",
    "ScalingActive=False",
    "ScalingLimited=True",
    "BacklogWithinTarget=False",
];

/// What to do about a reason of a condition. `NAME` stands for the object. `None` if nothing has to be done.
pub(crate) fn advice(condition: &str, reason: &str) -> Option<&'static str> {
    Some(match (condition, reason) {
        ("Ready=False", "RolloutInProgress") => "wait",
        ("Ready=False", "PodsRejected") => "raise the quota or the limit, or correct what the policy refuses",
        ("Ready=False", "PodsNotReady") => "check the pods",
        ("Ready=False", "Paused") => "`kubectl pulse plan NAME`, then `kubectl pulse resume NAME`",
        ("Ready=False", "RolloutQueued") => "wait, or raise `--max-concurrent-rollouts`",
        ("Ready=False", "Contested") => "stop that client, or set the field in the spec",
        ("Ready=False", "ReconcileFailed") => "read the message",
        ("Available=False", "NoApiPods") => "check the API pods",
        ("Migrated=False", "MigrationPlanning" | "MigrationRunning" | "RolloutQueued") => "wait",
        ("Migrated=False", "PlanNeedsApproval") => "read the plan, then `kubectl pulse approve NAME`",
        ("Migrated=False", "ManualMigrationNeeded") => "run `pulse migrate` with the new image",
        ("Migrated=False", "MigrationPodNotStarting") => {
            "fix the image, its pull secret, the quota, or the policy: the Job is replaced at once"
        }
        ("Migrated=False", "MigrationFailed") => "see the exit codes; the old version keeps running",
        ("Migrated=False" | "Reconciling=True", "WaitingForReference") | ("Stalled=True", "ReferenceMissing") => {
            "create the Secret"
        }
        ("Stalled=True", "NameConflict") => "rename or delete that object",
        ("Stalled=True", "InvalidPodTemplate") => "correct the field that the message names",
        ("Stalled=True", "RolloutStuck") => "check the new pods",
        ("CRDOutdated=True", "FieldsMissing") => "have an administrator run the command in the message",
        ("QueueReachable=False", "ConnectionFailed" | "AuthFailed" | "TlsFailed" | "WrongType" | "AnswerTooLong") => {
            "start Redis, or correct its Secret or its CA"
        }
        ("QueueReachable=False", "HostNotFound" | "UrlNotSupported") => "correct the URL in the Secret",
        ("QueueReachable=False", "HostNotAllowed") => "add the host to `--redis-allowed-host` of the operator",
        ("ScalingActive=False", "MetricsUnavailable") => "see QueueReachable, and check that a scheduler runs",
        ("ScalingActive=False", "InvalidSchedule") => "correct the expression or the time zone that the message names",
        ("ScalingLimited=True", "TooManyReplicas" | "TooFewReplicas" | "Schedule") => {
            "change the bound if it is not intended"
        }
        ("ScalingLimited=True", "ScaleUpLimit") => "wait",
        ("ScalingLimited=True", "DatabaseConnectionBudget") => {
            "raise `database.maxConnectionsTotal`, and `max_connections` of PostgreSQL if needed"
        }
        ("ScalingLimited=True", "PodsRejected") => "raise the quota or the limit, or lower `maxReplicas`",
        ("ScalingLimited=True", "WorkersNotReady") => "check the worker pods",
        ("BacklogWithinTarget=False", "TooOld") => "allow more workers, or make the processor faster",
        _ => return None,
    })
}

/// The next step for the most important problem.
pub(crate) fn next_step(cr: &PulseIngest, status: &PulseIngestStatus) -> String {
    let name = cr.metadata.name.as_deref().unwrap_or_default();
    if status.conditions.is_empty() {
        return "no operator has reconciled it yet: start one for this namespace; \
                `pulse check --pre` shows what is missing"
            .into();
    }
    if cr.metadata.generation.is_some_and(|generation| generation > status.observed_generation) {
        return "the operator has not observed the newest spec yet: wait, and check that the operator runs".into();
    }
    for problem in PROBLEMS {
        let is_problem = |found: &&Condition| format!("{}={}", found.type_, found.status) == problem;
        let Some(found) = status.conditions.iter().find(is_problem) else { continue };
        if let Some(advice) = advice(problem, &found.reason) {
            return format!("{} ({}: {})", advice.replace("NAME", name), found.reason, found.message);
        }
    }
    "nothing to do".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table: condition with its status, reasons, next step.
    fn rows() -> Vec<(String, Vec<String>, String)> {
        let text = include_str!("../../../docs/reference/conditions.md");
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
    fn next_steps_match_the_table_of_conditions() {
        let rows = rows();
        assert!(rows.len() > 20, "{rows:?}");
        for (condition, reasons, to_do) in &rows {
            for reason in reasons {
                assert_eq!(advice(condition, reason).unwrap_or_default(), to_do, "{condition} {reason}");
            }
        }
    }
}
