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
fn a_rollout_that_was_stuck_is_not_stuck_any_more_once_it_was_changed() {
    let stuck = json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }]);
    let stuck =
        |seen: i64| json!({ "status": { "observedGeneration": seen, "readyReplicas": 1, "conditions": stuck } });
    assert!(matches!(deployment_rollout(Role::Api, &deployment(stuck(2))), Rollout::Stuck(_)));
    assert!(matches!(deployment_rollout(Role::Api, &deployment(stuck(1))), Rollout::Going(_)));
}

#[test]
fn a_number_of_pods_that_is_not_as_the_spec_says_is_going_on() {
    let observed = Observed {
        deployments: Role::ALL.map(|role| (role, std::sync::Arc::new(deployment(json!({}))))).into(),
        ..Observed::default()
    };
    let message = |changes| match rollout(&pulse_ingest(changes), &observed) {
        Rollout::Going(message) => message,
        other => panic!("{other:?}"),
    };
    assert!(message(json!({ "api": { "replicas": 5 } })).contains("3 to"));
    assert!(message(json!({ "stopped": true })).contains("3 to 0"));
}

#[test]
fn what_waits_for_the_end_of_a_pause_does_not_run_yet() {
    let mut cr = pulse_ingest(json!({ "paused": true }));
    let wanted = crate::revision::desired(&cr.spec);
    let runs = crate::crd::Revision { hash: "before".into(), ..wanted.clone() };
    cr.status.get_or_insert_default().active_revision = Some(runs.clone());
    let observed = Observed::default();
    let key = crate::secrets::DigestKey::new(vec![7]);
    let plan = ReconcilePlan {
        active: Some(wanted.clone()),
        ..crate::plan::plan(&cr, &observed, &key, Timestamp::UNIX_EPOCH)
    };
    let active = |cr: &PulseIngest| {
        let findings = Findings {
            cr,
            observed: &observed,
            plan: &plan,
            scaling: ScalingReport::default(),
            obstacle: None,
            missing_for: None,
            pending: Vec::new(),
            now: Timestamp::UNIX_EPOCH,
        };
        status(findings).active_revision
    };
    assert_eq!(active(&cr), Some(runs));
    cr.spec.paused = false;
    assert_eq!(active(&cr), Some(wanted));
}

#[test]
fn a_secret_that_cannot_be_read_is_told_with_its_reason() {
    let cr = pulse_ingest(json!({}));
    let key = crate::secrets::DigestKey::new(vec![7]);
    let unreadable = crate::secrets::SecretRead::Unreadable("forbidden".into());
    let observed =
        Observed { secrets: [(cr.spec.database.url_secret_ref.clone(), unreadable)].into(), ..Observed::default() };
    let plan = crate::plan::plan(&cr, &observed, &key, Timestamp::UNIX_EPOCH);
    assert_eq!(migrated(&plan), ConditionState::new("False", "WaitingForReference", "forbidden"));
}
