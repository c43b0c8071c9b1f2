use pulse_crd::fixture::pulse_ingest;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;

fn at(ago: i64) -> String {
    Timestamp::from_second(NOW - ago).expect("valid").to_string()
}

fn input(status: Value, events: Value, warnings: Value, pods: Value) -> StatusInput {
    let mut object = pulse_ingest(json!({}));
    object.metadata.creation_timestamp = serde_json::from_value(json!(at(7200))).expect("a time");
    object.status = Some(serde_json::from_value(status).expect("a status"));
    let read = |events| Section::Read(serde_json::from_value(events).expect("Events"));
    StatusInput {
        object,
        events: read(events),
        warnings: read(warnings),
        pods: Section::Read(serde_json::from_value(pods).expect("pods")),
    }
}

fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(300),
    })
}

fn event(kind: &str, name: &str, reason: &str, message: &str, ago: i64, count: i32) -> Value {
    json!({
        "metadata": {}, "reason": reason, "message": message, "lastTimestamp": at(ago), "count": count,
        "involvedObject": { "kind": kind, "name": name },
    })
}

fn report_at_now(input: &StatusInput) -> StatusReport {
    report(input, Timestamp::from_second(NOW).expect("valid"))
}

#[test]
fn failed_migration_is_shown_once_with_its_next_step() {
    let failed = "Job main-migrate-1 failed (exit code 20): migration 1 was applied with another checksum";
    let status = json!({
        "observedGeneration": 1,
        "conditions": [
            condition("Ready", "False", "MigrationFailed", failed),
            condition("Available", "True", "MinimumAvailable", "fine"),
            condition("Migrated", "False", "MigrationFailed", failed),
            condition("Stalled", "True", "MigrationFailed", failed),
        ],
        "activeRevision": { "hash": "a", "image": "pulse:1", "version": "1", "databaseUrlSecretRef": { "name": "d", "key": "uri" } },
        "desiredRevision": { "hash": "b", "image": "pulse:2", "version": "2", "databaseUrlSecretRef": { "name": "d", "key": "uri" } },
        "migrations": { "state": "Failed", "jobName": "main-migrate-1", "exitCode": 20, "message": "another checksum" },
    });
    let report = report_at_now(&input(status, json!([]), json!([]), json!([])));
    assert_eq!(report.errors, [format!("MigrationFailed: {failed}")]);
    assert!(report.next_step.contains("the old version keeps running"), "{}", report.next_step);
    let text = report.to_string();
    for part in [
        "PulseIngest shop/main, 2h old\n",
        "  Migrated   False   MigrationFailed   5m   Job main-migrate-1",
        "  active   pulse:1\n  desired  pulse:2\n",
        "  Failed, Job main-migrate-1, exit code 20: another checksum\n",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn decisions_are_newest_first_and_warnings_are_counted_by_reason() {
    let events = json!([
        event("PulseIngest", "main", "ScaledUp", "1 to 2", 90, 1),
        event("PulseIngest", "main", "Ready", "no decision", 20, 1),
        event("PulseIngest", "main", "ScaledUp", "2 to 5", 30, 1),
    ]);
    let warnings = json!([
        event("Pod", "main-worker-1", "BackOff", "the first", 60, 3),
        event("Pod", "main-api-2", "BackOff", "the last", 10, 4),
        event("Pod", "main-api-api-2", "Failed", "of the object main-api, as far as a name can say", 9, 1),
        event("Pod", "other-api-1", "BackOff", "of another object", 5, 1),
        event("PulseIngest", "main-api", "ReferenceMissing", "another object", 5, 1),
    ]);
    let report = report_at_now(&input(json!({}), events, warnings, json!([])));
    let Section::Read(decisions) = &report.decisions else { panic!("{:?}", report.decisions) };
    assert_eq!(decisions.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["2 to 5", "1 to 2"]);
    let Section::Read(warnings) = &report.warnings else { panic!("{:?}", report.warnings) };
    assert_eq!((warnings[1].message.as_str(), warnings[1].count), ("the last", 7));
    assert_eq!(warnings.len(), 2);
}

#[test]
fn crash_looping_pod_shows_its_last_termination() {
    let pods = json!([
        { "metadata": { "name": "main-worker-1" }, "status": { "phase": "Running", "containerStatuses": [{
            "name": "pulse", "image": "", "imageID": "", "ready": false, "restartCount": 4,
            "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 80s" } },
            "lastState": { "terminated": { "exitCode": 1, "reason": "Error", "message": "first\nno Redis\n" } },
        }] } },
        { "metadata": { "name": "main-api-1" }, "status": { "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }] } },
        { "metadata": { "name": "main-api-2", "creationTimestamp": at(5) }, "status": { "phase": "Pending" } },
        { "metadata": { "name": "main-migrate-1" }, "status": { "phase": "Succeeded" } },
    ]);
    let report = report_at_now(&input(json!({}), json!([]), json!([]), pods));
    let text = report.to_string();
    let line = "Pod main-worker-1 (4 restarts): CrashLoopBackOff: back-off 80s; last ended with exit code 1 (Error): no Redis\n";
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("main-api") && !text.contains("main-migrate"), "{text}");
}

#[test]
fn unreadable_section_shows_its_error_instead_of_none() {
    let mut input = input(json!({}), json!([]), json!([]), json!([]));
    input.pods = Section::Unavailable { error: "forbidden: needs list pods in namespace shop".into() };
    let text = report_at_now(&input).to_string();
    assert!(text.contains("Errors\n  forbidden: needs list pods in namespace shop\n"), "{text}");
    assert!(text.contains("Next step: no operator has reconciled it yet"), "{text}");
    input.pods = Section::Read(Vec::new());
    assert!(report_at_now(&input).to_string().contains("Errors\n  none\n"));
}
