//! Worker pods, as the rules and the choice of victims see them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube_core::ResourceExt;
use pulse_crd::names::DELETION_COST;
use pulse_scaling::{STARTUP_BUDGET, WorkerPod};

use super::victims::Candidate;
use crate::pods;

/// The state of a pod that is not terminating.
pub fn worker_pod(pod: &Pod) -> WorkerPod {
    if pods::is_crashing(pod) {
        return WorkerPod::CrashLooping;
    }
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let changed = conditions
        .filter(|condition| condition.type_ == "Ready")
        .find_map(|condition| condition.last_transition_time.as_ref().map(|time| time.0));
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if !pods::is_ready(pod) {
        return WorkerPod::NotReady { since: changed.or(created).unwrap_or(Timestamp::UNIX_EPOCH) };
    }
    let took = changed.zip(created).map(|(ready, created)| ready.duration_since(created));
    // A pod that became ready so late was ready before.
    let took = took.filter(|took| !took.is_negative() && *took < STARTUP_BUDGET);
    WorkerPod::Ready { start_seconds: took.map(|took| took.as_secs_f64()) }
}

/// The pod as it may be removed.
pub fn candidate(pod: &Pod) -> Candidate {
    Candidate {
        name: pod.name_any(),
        ready: pods::is_ready(pod),
        deletion_cost: pod.annotations().get(DELETION_COST).and_then(|cost| cost.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready: &str, changed: &str, waiting: Option<&str>) -> Pod {
        let state = waiting.map(|reason| json!({ "waiting": { "reason": reason } }));
        let container =
            json!({ "name": "w", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state });
        serde_json::from_value(json!({
            "metadata": { "name": "w-1", "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": { DELETION_COST: "7" } },
            "status": {
                "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": changed }],
                "containerStatuses": [container],
            },
        }))
        .expect("a pod")
    }

    #[test]
    fn ready_pod_has_the_time_of_its_start_unless_it_was_ready_before() {
        for (changed, start_seconds) in
            [("2026-01-01T00:00:09Z", Some(9.0)), ("2026-01-01T03:00:00Z", None), ("2025-12-31T23:59:59Z", None)]
        {
            assert_eq!(worker_pod(&pod("True", changed, None)), WorkerPod::Ready { start_seconds }, "{changed}");
        }
    }

    #[test]
    fn pod_that_is_not_ready_says_since_when_and_a_crash_loop_counts_more() {
        let since = "2026-01-01T00:00:05Z";
        let not_ready = worker_pod(&pod("False", since, None));
        assert_eq!(not_ready, WorkerPod::NotReady { since: since.parse().expect("a time") });
        assert_eq!(worker_pod(&pod("True", since, Some("CrashLoopBackOff"))), WorkerPod::CrashLooping);
        let expected = Candidate { name: "w-1".into(), ready: true, deletion_cost: Some(7) };
        assert_eq!(candidate(&pod("True", since, None)), expected);
    }
}
