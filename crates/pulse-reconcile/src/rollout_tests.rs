use pulse_crd::fixture::pulse_ingest;
use serde_json::{Value, json};

use super::*;

/// A Deployment of three ready pods, with changes.
fn deployment(changes: Value) -> Deployment {
    let mut object = json!({
        "metadata": { "name": "main-api", "generation": 2, "annotations": { "pulseboard.dev/applied": "one" } },
        "spec": { "replicas": 3, "selector": {}, "template": {} },
        "status": { "observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3 },
    });
    pulse_crd::fixture::merge(&mut object, changes);
    serde_json::from_value(object).expect("a valid Deployment")
}

/// All Deployments, with the same changes.
fn observed(changes: &Value) -> Observed {
    let deployments = Role::ALL.map(|role| (role, std::sync::Arc::new(deployment(changes.clone()))));
    Observed { deployments: deployments.into(), ..Observed::default() }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

fn of(rollouts: &Rollouts, changes: &Value) -> Progress {
    rollouts.of(Role::Api, &deployment(changes.clone()))
}

#[test]
fn stuck_rollout_is_in_progress_again_after_a_change() {
    let stuck = json!([{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }]);
    let stuck =
        |seen: i64| json!({ "status": { "observedGeneration": seen, "readyReplicas": 1, "conditions": stuck } });
    let rollouts = Rollouts::default();
    assert!(matches!(of(&rollouts, &stuck(2)), Progress::Stuck(_)));
    assert!(matches!(of(&rollouts, &stuck(1)), Progress::Unfinished(..)));
}

#[test]
fn rollout_is_in_progress_while_replicas_differ_from_the_spec() {
    let observed = observed(&json!({}));
    let message = |changes| match progress(&pulse_ingest(changes), &observed, &Rollouts::default(), &[], at(0)) {
        Progress::Unfinished("RolloutInProgress", message) => message,
        other => panic!("{other:?}"),
    };
    assert!(message(json!({ "api": { "replicas": 5 } })).contains("3 to"));
    assert!(message(json!({ "stopped": true })).contains("3 to 0"));
}

#[test]
fn rollout_says_with_which_words_a_new_pod_ends() {
    let mut observed = Observed::default();
    let pod = json!({ "metadata": { "name": "main-api-new" }, "status": { "containerStatuses": [{
        "name": "pulse", "image": "", "imageID": "", "ready": false, "restartCount": 2,
        "state": { "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container" } },
        "lastState": { "terminated": { "exitCode": 1, "message": "starts\nthe URL is wrong\n" } },
    }] } });
    observed.pods.insert(Role::Api, vec![std::sync::Arc::new(serde_json::from_value(pod).expect("a pod"))]);
    let rolling = json!({ "status": { "replicas": 4, "updatedReplicas": 1 } });
    let progress = of(&Rollouts::default(), &rolling).because_of(&observed, Role::Api);
    let Progress::Unfinished("RolloutInProgress", message) = progress else { panic!("{progress:?}") };
    assert!(message.ends_with("pod main-api-new: CrashLoopBackOff: the URL is wrong"), "{message}");
}

#[test]
fn scaling_restarts_and_drains_are_no_rollout() {
    let rollouts = Rollouts::default();
    let scaled = json!({ "metadata": { "generation": 3 }, "spec": { "replicas": 9 } });
    let starting = json!({ "spec": { "replicas": 9 }, "status": { "replicas": 9, "updatedReplicas": 9 } });
    let creating = json!({ "spec": { "replicas": 9 } });
    let from_zero = json!({
        "spec": { "replicas": 1 }, "status": { "replicas": 1, "updatedReplicas": 1, "readyReplicas": 0 },
    });
    let restarting = json!({ "status": { "readyReplicas": 0 } });
    let all = [&scaled, &starting, &creating, &from_zero, &restarting];
    for changes in all {
        assert!(matches!(of(&rollouts, changes), Progress::Unfinished(..)), "first rollout: {changes}");
    }
    let complete = json!([{ "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable" }]);
    for changes in all.into_iter().filter(|changes| **changes != scaled) {
        let mut known = changes.clone();
        pulse_crd::fixture::merge(&mut known, json!({ "status": { "conditions": complete } }));
        assert_eq!(of(&rollouts, &known), Progress::Done, "after a restart of the operator: {changes}");
    }
    let rollouts = rollouts.after(&observed(&json!({})));
    for changes in all {
        assert_eq!(of(&rollouts, changes), Progress::Done, "{changes}");
        let mut other = changes.clone();
        pulse_crd::fixture::merge(
            &mut other,
            json!({ "metadata": { "annotations": { "pulseboard.dev/applied": "two" } } }),
        );
        assert!(matches!(of(&rollouts, &other), Progress::Unfinished(..)), "another template: {changes}");
    }
    let outdated = json!({ "status": { "replicas": 4, "updatedReplicas": 1 } });
    assert!(matches!(of(&rollouts, &outdated), Progress::Unfinished(..)), "a user restarts the pods");
}

#[test]
fn role_without_a_ready_pod_is_reported_after_two_minutes() {
    let since = |ready: i32| {
        json!({ "spec": { "replicas": 2 }, "status": { "readyReplicas": ready, "conditions": [
            { "type": "Available", "status": "False", "lastTransitionTime": "1970-01-01T00:00:00Z" },
            { "type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable" },
        ] } })
    };
    let cr = pulse_ingest(json!({ "api": { "replicas": 2 }, "scheduler": { "replicas": 2 } }));
    let progress = |ready, seconds| progress(&cr, &observed(&since(ready)), &Rollouts::default(), &[], at(seconds));
    assert_eq!(progress(0, 119), Progress::Done);
    assert!(matches!(progress(0, 120), Progress::Unfinished("PodsNotReady", _)));
    assert_eq!(progress(1, 9999), Progress::Done, "one of two serves");
}

#[test]
fn rejected_pods_are_reported_with_the_message_of_kubernetes() {
    let rejected = |reason: &str| {
        json!({ "spec": { "replicas": 3 }, "status": { "readyReplicas": 1, "updatedReplicas": 1, "replicas": 1, "conditions": [
            { "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small" },
            { "type": "Progressing", "status": "True", "reason": reason },
        ] } })
    };
    let cr = pulse_ingest(json!({ "api": { "replicas": 3 }, "scheduler": { "replicas": 3 } }));
    let progress = |reason| progress(&cr, &observed(&rejected(reason)), &Rollouts::default(), &[], at(0));
    for reason in ["ReplicaSetUpdated", "NewReplicaSetAvailable"] {
        let Progress::Unfinished("PodsRejected", message) = progress(reason) else { panic!("{reason}") };
        assert!(message.contains("exceeded quota: small"), "{message}");
    }
    let Progress::Stuck(message) = progress("ProgressDeadlineExceeded") else { panic!("not stuck") };
    assert!(message.contains("exceeded quota: small"), "{message}");
    let workers = deployment(rejected("NewReplicaSetAvailable"));
    assert_eq!(failing(Role::Worker, &workers, at(0)), Progress::Done, "ScalingLimited reports them");
    assert_eq!(rejection(&observed(&rejected("x")), Role::Worker).as_deref(), Some("exceeded quota: small"));
}

#[test]
fn held_deployment_is_in_progress() {
    let cr = pulse_ingest(json!({ "api": { "replicas": 3 }, "scheduler": { "replicas": 3 } }));
    let progress = progress(&cr, &observed(&json!({})), &Rollouts::default(), &["main-api".into()], at(0));
    assert!(
        matches!(progress, Progress::Unfinished("RolloutInProgress", message) if message.contains("maxConnectionsTotal"))
    );
}

#[test]
fn console_counts_only_while_it_is_enabled() {
    let missing = || {
        let mut observed = observed(&json!({}));
        observed.deployments.remove(&Role::Console);
        observed
    };
    let counts = json!({ "api": { "replicas": 3 }, "scheduler": { "replicas": 3 } });
    let mut with_console = counts.clone();
    with_console["console"] = json!({ "enabled": true, "replicas": 3 });
    let progress_of = |changes: &Value, observed: &Observed| {
        progress(&pulse_ingest(changes.clone()), observed, &Rollouts::default(), &[], at(0))
    };
    assert_eq!(progress_of(&counts, &missing()), Progress::Done);
    assert_eq!(progress_of(&with_console, &observed(&json!({}))), Progress::Done);
    assert!(matches!(progress_of(&with_console, &missing()), Progress::Unfinished("RolloutInProgress", _)));

    let mut left = observed(&json!({}));
    left.deployments.insert(Role::Console, deployment(json!({ "status": { "readyReplicas": 0 } })).into());
    assert_eq!(progress_of(&counts, &left), Progress::Done, "it is being deleted");
}

#[test]
fn deployment_that_is_created_again_is_a_new_rollout() {
    let rollouts = Rollouts::default();
    let console = |changes| Observed {
        deployments: [(Role::Console, std::sync::Arc::new(deployment(changes)))].into(),
        ..Observed::default()
    };
    let starting = console(json!({ "status": { "readyReplicas": 0 } }));
    let rollouts = rollouts.after(&console(json!({})));
    assert!(!rollouts.is_rolling(&starting, Role::Console), "its pods restart");
    let rollouts = rollouts.after(&Observed::default());
    assert!(rollouts.is_rolling(&starting, Role::Console));
}
