//! Reads the state of pods. Pure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::condition::ConditionStatus;

/// Reports whether the pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    has_condition(pod, "Ready", ConditionStatus::True)
}

/// Reports whether the pod is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Reports whether every container has ended and none will be restarted.
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Returns why the pod cannot start, as far as Kubernetes reports it.
pub fn startup_failure(pod: &Pod) -> Option<String> {
    failure(pod, |_| None)
}

/// Like [`startup_failure`], with the last words of a container that ended.
pub fn explained_failure(pod: &Pod) -> Option<String> {
    failure(pod, last_words)
}

fn failure(pod: &Pod, details: impl Fn(&ContainerStatus) -> Option<&str>) -> Option<String> {
    unschedulable(pod).or_else(|| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        statuses.iter().find_map(|status| {
            let waiting = status.state.as_ref()?.waiting.as_ref()?;
            let reason = waiting.reason.as_deref()?;
            let is_failure = reason.contains("Err") || reason.contains("BackOff") || reason.contains("Invalid");
            let details = details(status).or(waiting.message.as_deref());
            is_failure.then(|| format!("{reason}: {}", details.unwrap_or("no details are reported")))
        })
    })
}

/// Returns the last line that the container wrote before it ended. Kubernetes reports at most 4 KiB of its log.
fn last_words(status: &ContainerStatus) -> Option<&str> {
    let ended = status.last_state.as_ref()?.terminated.as_ref()?;
    ended.message.as_deref()?.lines().map(str::trim).rfind(|line| !line.is_empty())
}

/// Reports whether a container is in `CrashLoopBackOff`.
pub fn is_crashing(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .filter_map(|status| status.state.as_ref()?.waiting.as_ref()?.reason.as_deref())
        .any(|reason| reason == "CrashLoopBackOff")
}

/// Returns why no node accepts the pod.
fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut conditions = conditions.filter(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == ConditionStatus::False
            && condition.reason.as_deref() == Some("Unschedulable")
    });
    let message = conditions.next()?.message.clone().unwrap_or_default();
    Some(format!("Unschedulable: {message}"))
}

fn has_condition(pod: &Pod, name: &str, status: ConditionStatus) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == name && condition.status == status)
}
