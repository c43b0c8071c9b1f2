use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pulse_crd::PlanSummary;
use pulse_crd::fixture::pulse_ingest;
use serde_json::{Value, json};

use super::steps::{KEEP_SECONDS, RERUN_SECONDS};
use super::*;
use crate::revision;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const PLANNED: &str =
    r#"{"current":1,"pending":2,"names":["a","b"],"newest":3,"destructive":true,"ahead":0,"hash":"c0ffee"}"#;
const NOTHING: &str =
    r#"{"current":3,"pending":0,"names":[],"newest":3,"destructive":false,"ahead":2,"hash":"c0ffee"}"#;

fn policy(policy: &str) -> Value {
    json!({ "migrations": { "policy": policy } })
}

/// A Job that has ended, and its pod.
fn ended(name: &str, exit_code: i32, message: &str) -> (Vec<Arc<Job>>, Vec<Arc<Pod>>) {
    let type_ = if exit_code == 0 { "Complete" } else { "Failed" };
    let job = json!({
        "metadata": { "name": name },
        "status": { "conditions": [{ "type": type_, "status": "True", "message": "by the test" }] },
    });
    let pod = json!({
        "metadata": { "name": name, "labels": { "batch.kubernetes.io/job-name": name } },
        "status": { "containerStatuses": [{
            "name": "pulse", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": { "exitCode": exit_code, "message": message } },
        }] },
    });
    let (job, pod) = (serde_json::from_value(job).unwrap(), serde_json::from_value(pod).unwrap());
    (vec![Arc::new(job)], vec![Arc::new(pod)])
}

fn running(name: &str) -> Vec<Arc<Job>> {
    vec![Arc::new(serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap())]
}

/// Plans, and stores the result in the object's status.
fn reconcile(cr: &mut PulseIngest, jobs: &[Arc<Job>], pods: &[Arc<Pod>]) -> Migration {
    let desired = revision::desired(&cr.spec);
    let migration = plan_migration(cr, &desired, Some("key:digest"), jobs, pods, NOW);
    cr.status.get_or_insert_default().migrations = Some(migration.status.clone());
    migration
}

fn reason(migration: &Migration) -> &str {
    migration.waiting.as_ref().map_or("", |waiting| waiting.reason)
}

#[test]
fn new_object_creates_a_job_and_waits_for_it() {
    let mut cr = pulse_ingest(json!({}));
    let first = reconcile(&mut cr, &[], &[]);
    let name = first.create.clone().expect("a Job").name;
    assert!(name.starts_with("main-migrate-") && name.len() == "main-migrate-".len() + 10);
    assert_eq!((first.done, reason(&first)), (false, "MigrationRunning"));
    let second = reconcile(&mut cr, &running(&name), &[]);
    assert_eq!((second.create.is_none(), second.done), (true, false));
    let (jobs, pods) = ended(&name, 0, NOTHING);
    let third = reconcile(&mut cr, &jobs, &pods);
    assert!(third.done);
    assert_eq!(third.expire, [(name, KEEP_SECONDS)]);
    assert_eq!((third.status.schema_version, third.status.ahead), (Some(3), Some(2)));
}

#[test]
fn vanished_job_runs_again_unless_its_result_is_known() {
    let mut cr = pulse_ingest(json!({}));
    let name = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
    assert_eq!(reconcile(&mut cr, &[], &[]).create.map(|job| job.name), Some(name.clone()), "removed without a result");
    let (jobs, pods) = ended(&name, 0, NOTHING);
    reconcile(&mut cr, &jobs, &pods);
    let later = reconcile(&mut cr, &[], &[]);
    assert_eq!((later.done, later.create), (true, None));
}

#[test]
fn final_exit_codes_stop_the_job_and_others_run_again() {
    for code in 20..=25 {
        let mut cr = pulse_ingest(json!({}));
        let name = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
        let (jobs, pods) = ended(&name, code, "{\"a log line\"}\nnot migrated: because");
        let failed = reconcile(&mut cr, &jobs, &pods);
        let waiting = failed.waiting.clone().expect("waits");
        assert!(waiting.needs_action && waiting.message.contains("not migrated: because"), "{code}: {waiting:?}");
        let later = reconcile(&mut cr, &[], &[]);
        assert_eq!((later.create.is_none(), reason(&later)), (true, "MigrationFailed"), "{code} is final");
    }
    let mut cr = pulse_ingest(json!({}));
    let name = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
    let (jobs, pods) = ended(&name, 1, "not migrated: PostgreSQL is unavailable");
    let failed = reconcile(&mut cr, &jobs, &pods);
    assert_eq!(failed.expire, [(name.clone(), RERUN_SECONDS)]);
    assert!(!failed.waiting.expect("waits").needs_action);
    assert_eq!(reconcile(&mut cr, &[], &[]).create.map(|job| job.name), Some(name));
}

#[test]
fn failed_result_is_reported_unchanged_by_later_reconciles() {
    let mut cr = pulse_ingest(json!({}));
    let name = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
    let (jobs, pods) = ended(&name, 1, "not migrated: away");
    let first = reconcile(&mut cr, &jobs, &pods);
    let desired = revision::desired(&cr.spec);
    let later = plan_migration(&cr, &desired, Some("key:digest"), &jobs, &pods, Timestamp::from_second(99).unwrap());
    assert_eq!(first.status, later.status);
}

#[test]
fn changed_inputs_create_a_new_job_that_waits_for_the_running_one() {
    let name = |changes: Value| reconcile(&mut pulse_ingest(changes), &[], &[]).create.expect("a Job").name;
    let first = name(json!({}));
    assert_eq!(first, name(json!({ "api": { "replicas": 9 } })), "other fields are not inputs");
    let changes = [
        json!({ "image": { "tag": "2" } }),
        json!({ "database": { "urlSecretRef": { "key": "other" } } }),
        json!({ "database": { "migrationUrlSecretRef": { "name": "owner", "key": "uri" } } }),
        json!({ "database": { "servingRole": "role" } }),
        json!({ "database": { "readRole": "role" } }),
        json!({ "migrations": { "trigger": "again" } }),
        json!({ "migrations": { "allowDestructive": true } }),
    ];
    for changes in changes {
        assert_ne!(first, name(changes.clone()), "{changes}");
    }
    let mut cr = pulse_ingest(json!({ "image": { "tag": "2" } }));
    let waits = reconcile(&mut cr, &running(&first), &[]);
    assert_eq!((waits.create.is_none(), reason(&waits)), (true, "MigrationRunning"));
}

/// A pod of a Job whose containers have these states.
fn pod_of(job: &str, states: Value) -> Arc<Pod> {
    let statuses = states.as_object().unwrap().iter().map(|(name, state)| {
        json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state })
    });
    let pod = json!({
        "metadata": { "name": job, "labels": { "batch.kubernetes.io/job-name": job } },
        "status": { "phase": "Pending", "containerStatuses": Vec::from_iter(statuses) },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

#[test]
fn superseded_job_is_deleted_only_if_its_container_never_started() {
    let first = reconcile(&mut pulse_ingest(json!({})), &[], &[]).create.expect("a Job").name;
    let deleted = |jobs: &[Arc<Job>], pods: &[Arc<Pod>]| {
        let mut cr = pulse_ingest(json!({ "image": { "tag": "2" } }));
        let waits = reconcile(&mut cr, jobs, pods);
        assert_eq!((waits.create.is_none(), reason(&waits)), (true, "MigrationRunning"));
        waits.delete
    };
    let waiting = json!({ "waiting": { "reason": "ImagePullBackOff" } });
    let (runs, ended) = (json!({ "running": {} }), json!({ "terminated": { "exitCode": 0 } }));
    let jobs = running(&first);
    assert_eq!(deleted(&jobs, &[]), [first.as_str()], "quota: no pod");
    assert_eq!(deleted(&jobs, &[pod_of(&first, json!({ "pulse": waiting }))]), [first.as_str()]);
    assert_eq!(deleted(&jobs, &[pod_of(&first, json!({ "pulse": waiting, "proxy": runs }))]), [first.as_str()]);
    assert_eq!(deleted(&jobs, &[pod_of(&first, json!({ "pulse": ended, "proxy": runs }))]), [first.as_str()]);
    assert_eq!(deleted(&jobs, &[pod_of(&first, json!({ "pulse": runs }))]), [""; 0]);
    assert_eq!(deleted(&jobs, &[pod_of(&first, json!({ "pulse": ended }))]), [""; 0], "the Job is about to end");
    let mut job = jobs[0].as_ref().clone();
    job.status.get_or_insert_default().active = Some(1);
    assert_eq!(deleted(&[Arc::new(job.clone())], &[]), [""; 0], "its pod is not in the cache yet");
    job.metadata.deletion_timestamp = Some(Time(NOW));
    assert_eq!(deleted(&[Arc::new(job)], &[]), [""; 0], "its pods may still end");
}

#[test]
fn exit_code_of_our_container_decides_beside_one_that_never_ends() {
    let proxy = json!({ "running": {} });
    let at = |second| Timestamp::from_second(second).unwrap();
    for (code, message, wanted) in [(0, NOTHING, ""), (20, "not migrated: x", "MigrationFailed")] {
        let mut cr = pulse_ingest(json!({}));
        let name = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
        let state = json!({ "terminated": { "exitCode": code, "message": message } });
        let (jobs, pods) = (running(&name), [pod_of(&name, json!({ "pulse": state, "proxy": proxy }))]);
        let first = reconcile(&mut cr, &jobs, &pods);
        assert_eq!((first.done, reason(&first)), (code == 0, wanted));
        assert_eq!((first.unended, &first.delete), (true, &vec![]), "the sidecar may end by itself");
        let desired = revision::desired(&cr.spec);
        let later = plan_migration(&cr, &desired, Some("key:digest"), &jobs, &pods, at(61));
        assert_eq!((later.done, later.delete), (code == 0, vec![name]));
    }
    // A failed sidecar does not make a successful migration run again.
    let mut cr = pulse_ingest(json!({}));
    let name = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
    let (jobs, _) = ended(&name, 1, "");
    let state = json!({ "terminated": { "exitCode": 0, "message": NOTHING } });
    let failed = json!({ "terminated": { "exitCode": 137 } });
    assert!(reconcile(&mut cr, &jobs, &[pod_of(&name, json!({ "pulse": state, "proxy": failed }))]).done);
}

#[test]
fn plan_waits_for_the_approval_of_its_hash() {
    let mut cr = pulse_ingest(policy("Plan"));
    let job = reconcile(&mut cr, &[], &[]).create.expect("a Job");
    assert_eq!(job.args, ["migrate", "--plan"]);
    let (jobs, pods) = ended(&job.name, 0, PLANNED);
    let planned = reconcile(&mut cr, &jobs, &pods);
    assert_eq!((planned.done, reason(&planned)), (false, "PlanNeedsApproval"));
    assert_eq!(planned.status.plan_hash.as_deref(), Some("c0ffee"));
    assert_eq!(
        planned.status.plan,
        Some(PlanSummary { pending: 2, destructive: true, names: vec!["a".into(), "b".into()] })
    );
    assert_eq!(reconcile(&mut cr, &[], &[]).create, None, "the Job was removed, and the plan is known");

    cr.spec.migrations.approved_plan = Some("another".into());
    assert_eq!(reconcile(&mut cr, &[], &[]).create, None);
    cr.spec.migrations.approved_plan = Some("c0ffee".into());
    let job = reconcile(&mut cr, &[], &[]).create.expect("a Job");
    assert_eq!(job.args, ["migrate", "--expect-plan", "c0ffee"]);
    let (jobs, pods) = ended(&job.name, 0, PLANNED);
    assert!(reconcile(&mut cr, &jobs, &pods).done);
    assert!(reconcile(&mut cr, &[], &[]).done);
}

#[test]
fn approved_plan_does_not_apply_to_another_image_and_can_be_planned_again() {
    let mut cr = pulse_ingest(policy("Plan"));
    let planning = reconcile(&mut cr, &[], &[]).create.expect("a Job");
    let (mut jobs, mut pods) = ended(&planning.name, 0, PLANNED);
    reconcile(&mut cr, &jobs, &pods);
    cr.spec.migrations.approved_plan = Some("c0ffee".into());
    let migrating = reconcile(&mut cr, &jobs, &pods).create.expect("a Job");
    let (job, pod) = ended(&migrating.name, 23, "not migrated: another plan");
    jobs.extend(job);
    pods.extend(pod);
    assert_eq!(reason(&reconcile(&mut cr, &jobs, &pods)), "MigrationFailed");

    let mut other = cr.clone();
    other.spec.image.tag = Some("2".into());
    assert_eq!(reconcile(&mut other, &jobs, &pods).create.expect("a Job").args, ["migrate", "--plan"]);

    cr.spec.migrations.approved_plan = None;
    let again = reconcile(&mut cr, &jobs, &pods).create.expect("a new plan");
    assert_ne!(again.name, planning.name);
    let (job, pod) = ended(&again.name, 0, NOTHING);
    jobs.extend(job);
    pods.extend(pod);
    assert!(reconcile(&mut cr, &jobs, &pods).done);
}

#[test]
fn rolled_back_version_is_checked_against_the_current_schema() {
    let mut cr = pulse_ingest(json!({}));
    let first = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
    let (mut jobs, mut pods) = ended(&first, 0, NOTHING);
    assert!(reconcile(&mut cr, &jobs, &pods).done);

    cr.spec.image.tag = Some("2".into());
    let second = reconcile(&mut cr, &jobs, &pods).create.expect("a Job").name;
    jobs.extend(running(&second));
    assert_eq!(reason(&reconcile(&mut cr, &jobs, &pods)), "MigrationRunning");

    cr.spec.image.tag = Some("1.0.0".into());
    let waits = reconcile(&mut cr, &jobs, &pods);
    assert_eq!((waits.create, waits.done), (None, false), "the schema may change until the other Job has ended");
    jobs.pop();
    let (job, pod) = ended(&second, 0, NOTHING);
    jobs.extend(job);
    pods.extend(pod);
    let third = reconcile(&mut cr, &jobs, &pods).create.expect("a Job").name;
    assert_ne!(third, first, "its result is older than the other Job");
    let (job, pod) = ended(&third, 22, "not migrated: the schema is ahead");
    jobs.extend(job);
    pods.extend(pod);
    assert_eq!(reason(&reconcile(&mut cr, &jobs, &pods)), "MigrationFailed");
}

#[test]
fn job_result_is_awaited_and_read_from_the_pulse_container() {
    let mut cr = pulse_ingest(json!({}));
    let name = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
    let (jobs, pods) = ended(&name, 0, NOTHING);
    let outdated: Pod = serde_json::from_value(json!({ "metadata": pods[0].metadata })).unwrap();
    assert!(
        !reconcile(&mut cr, &jobs, &[Arc::new(outdated)]).done,
        "the watches of Jobs and pods are not synchronised"
    );
    let mut pod = pods[0].as_ref().clone();
    let statuses = pod.status.as_mut().and_then(|status| status.container_statuses.as_mut()).expect("statuses");
    let mut other = statuses[0].clone();
    other.name = "a-proxy".into();
    other.state = None;
    statuses.insert(0, other);
    assert_eq!(reconcile(&mut cr, &jobs, &[Arc::new(pod)]).status.schema_version, Some(3));
}

#[test]
fn manual_policy_plans_again_until_nothing_is_pending() {
    let mut cr = pulse_ingest(policy("Manual"));
    let job = reconcile(&mut cr, &[], &[]).create.expect("a Job");
    let (jobs, pods) = ended(&job.name, 0, PLANNED);
    let planned = reconcile(&mut cr, &jobs, &pods);
    assert_eq!(
        (reason(&planned), &planned.expire),
        ("ManualMigrationNeeded", &vec![(job.name.clone(), RERUN_SECONDS)])
    );
    let again = reconcile(&mut cr, &[], &[]);
    assert_eq!(
        (reason(&again), again.create.clone().map(|job| job.name)),
        ("ManualMigrationNeeded", Some(job.name.clone()))
    );
    let (jobs, pods) = ended(&job.name, 0, NOTHING);
    assert!(reconcile(&mut cr, &jobs, &pods).done);
}

#[test]
fn plan_is_made_again_if_its_pod_is_deleted() {
    let mut cr = pulse_ingest(policy("Plan"));
    let job = reconcile(&mut cr, &[], &[]).create.expect("a Job");
    let (jobs, _) = ended(&job.name, 0, PLANNED);
    let lost = reconcile(&mut cr, &jobs, &[]);
    assert_eq!((lost.done, lost.expire), (false, vec![(job.name, 1)]));
}

#[test]
fn pod_startup_failure_is_reported() {
    let mut cr = pulse_ingest(json!({}));
    let name = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
    let pod = json!({
        "metadata": { "name": name, "labels": { "batch.kubernetes.io/job-name": name } },
        "status": { "containerStatuses": [{
            "name": "pulse", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } },
        }] },
    });
    let migration = reconcile(&mut cr, &running(&name), &[Arc::new(serde_json::from_value(pod).unwrap())]);
    assert_eq!(reason(&migration), "MigrationPodNotStarting");
    assert!(migration.waiting.expect("waits").message.contains("no such image"));
}

#[test]
fn unreadable_url_does_not_block_the_active_revision() {
    let mut cr = pulse_ingest(json!({}));
    let desired = revision::desired(&cr.spec);
    let name = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
    let (jobs, pods) = ended(&name, 0, NOTHING);
    reconcile(&mut cr, &jobs, &pods);
    cr.status.as_mut().unwrap().active_revision = Some(desired.clone());
    assert!(plan_migration(&cr, &desired, None, &[], &[], NOW).done);
    let other = Revision { hash: "other".into(), ..desired };
    assert!(!plan_migration(&cr, &other, None, &[], &[], NOW).done);
}

#[test]
fn rejected_pods_of_a_job_are_named() {
    let mut cr = pulse_ingest(json!({}));
    let name = reconcile(&mut cr, &[], &[]).create.expect("a Job").name;
    let rejections = |job: &str| [(job.to_owned(), "exceeded quota: small".to_owned())].into();
    let waiting = reconcile(&mut cr, &running(&name), &[]).with_rejections(&rejections(&name));
    assert_eq!(reason(&waiting), "MigrationPodNotStarting");
    assert!(waiting.waiting.expect("waits").message.ends_with("exceeded quota: small"));
    let other = reconcile(&mut cr, &running(&name), &[]).with_rejections(&rejections("other"));
    assert_eq!(reason(&other), "MigrationRunning");
}
