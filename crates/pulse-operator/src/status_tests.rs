use serde_json::{Value, json};

use super::*;
use crate::fixture::pulse_ingest;

/// A Deployment of three ready pods, with changes.
fn deployment(changes: Value) -> Deployment {
    let mut object = json!({
        "metadata": { "name": "main-api", "generation": 2 },
        "spec": { "replicas": 3, "selector": {}, "template": {} },
        "status": { "observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3 },
    });
    crate::fixture::merge(&mut object, changes);
    serde_json::from_value(object).expect("a valid Deployment")
}

#[test]
fn stuck_rollout_is_in_progress_again_after_a_change() {
    let stuck = json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }]);
    let stuck =
        |seen: i64| json!({ "status": { "observedGeneration": seen, "readyReplicas": 1, "conditions": stuck } });
    assert!(matches!(deployment_rollout(Role::Api, &deployment(stuck(2))), Rollout::Stuck(_)));
    assert!(matches!(deployment_rollout(Role::Api, &deployment(stuck(1))), Rollout::InProgress(_)));
}

#[test]
fn rollout_is_in_progress_while_replicas_differ_from_the_spec() {
    let observed = Observed {
        deployments: Role::ALL.map(|role| (role, std::sync::Arc::new(deployment(json!({}))))).into(),
        ..Observed::default()
    };
    let message = |changes| match rollout(&pulse_ingest(changes), &observed) {
        Rollout::InProgress(message) => message,
        other => panic!("{other:?}"),
    };
    assert!(message(json!({ "api": { "replicas": 5 } })).contains("3 to"));
    assert!(message(json!({ "stopped": true })).contains("3 to 0"));
}

#[test]
fn active_revision_stays_while_paused() {
    let mut cr = pulse_ingest(json!({ "paused": true }));
    let desired = crate::revision::desired(&cr.spec);
    let active_before = crate::crd::Revision { hash: "before".into(), ..desired.clone() };
    cr.status.get_or_insert_default().active_revision = Some(active_before.clone());
    let observed = Observed::default();
    let key = crate::secrets::DigestKey::new(vec![7]);
    let plan = ReconcilePlan {
        active: Some(desired.clone()),
        ..crate::plan::plan(&cr, &observed, &key, Timestamp::UNIX_EPOCH)
    };
    let active = |cr: &PulseIngest| {
        let inputs = StatusInputs {
            cr,
            observed: &observed,
            plan: &plan,
            scaling: ScalingReport::default(),
            failure: None,
            missing_duration: None,
            pending: Vec::new(),
            crd_outdated: None,
            now: Timestamp::UNIX_EPOCH,
        };
        status(inputs).active_revision
    };
    assert_eq!(active(&cr), Some(active_before));
    cr.spec.paused = false;
    assert_eq!(active(&cr), Some(desired));
}

#[test]
fn migrated_condition_reports_why_a_secret_is_unreadable() {
    let cr = pulse_ingest(json!({}));
    let key = crate::secrets::DigestKey::new(vec![7]);
    let unreadable = crate::secrets::SecretRead::Unreadable("forbidden".into());
    let observed =
        Observed { secrets: [(cr.spec.database.url_secret_ref.clone(), unreadable)].into(), ..Observed::default() };
    let plan = crate::plan::plan(&cr, &observed, &key, Timestamp::UNIX_EPOCH);
    assert_eq!(migrated(&plan), ConditionState::new(False, "WaitingForReference", "forbidden"));
}
