//! Reads the outcome of a migration Job. The exit code of our container decides, because other containers that an
//! admission webhook has added to the pod may fail or never end.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube_core::ResourceExt;
use serde::Deserialize;

use crate::condition::ConditionStatus;
use crate::desired::CONTAINER;
use crate::pods;

/// Result that `pulse migrate` writes as its termination message.
#[derive(Debug, Deserialize)]
pub(super) struct JobResult {
    pub(super) pending: i64,
    pub(super) names: Vec<String>,
    pub(super) newest: i64,
    pub(super) destructive: bool,
    pub(super) ahead: i64,
    pub(super) hash: String,
}

/// State of a Job.
pub(super) enum JobOutcome {
    /// There is no Job of that name.
    Absent,
    /// The Job runs, with the reason why its pod cannot start, if any.
    Running(Option<String>),
    Succeeded(Option<JobResult>),
    Failed {
        exit_code: Option<i32>,
        message: String,
    },
}

/// Returns the outcome of the Job of that name.
pub(super) fn outcome(name: &str, jobs: &[Arc<Job>], job_pods: &[Arc<Pod>]) -> JobOutcome {
    let Some(job) = jobs.iter().find(|job| job.name_any() == name) else { return JobOutcome::Absent };
    if job.metadata.deletion_timestamp.is_some() {
        return JobOutcome::Running(None);
    }
    let pods = pods_of(name, job_pods);
    let last = pods.iter().rev().find_map(|pod| terminated(pod));
    if last.is_none() && !pods.is_empty() && has_ended(job) {
        // The pod has ended too, but the pod watch lags behind the Job watch.
        return JobOutcome::Running(None);
    }
    match ended(job) {
        None => match pods.iter().rev().find_map(|pod| terminated(pod).filter(|_| is_kept_running(pod))) {
            Some(state) if state.exit_code == 0 => succeeded(Some(state)),
            Some(state) => failed(Some(state), String::new()),
            None => JobOutcome::Running(pods.iter().rev().find_map(|pod| pods::startup_failure(pod))),
        },
        Some(("Complete", _)) => succeeded(last),
        Some(_) if last.is_some_and(|state| state.exit_code == 0) => succeeded(last),
        Some((_, message)) => failed(last, message),
    }
}

fn succeeded(state: Option<&ContainerStateTerminated>) -> JobOutcome {
    let text = state.and_then(|state| state.message.clone());
    JobOutcome::Succeeded(text.and_then(|text| serde_json::from_str(&text).ok()))
}

fn failed(state: Option<&ContainerStateTerminated>, of_job: String) -> JobOutcome {
    JobOutcome::Failed {
        exit_code: state.map(|state| state.exit_code),
        message: state.and_then(|state| state.message.clone()).map_or(of_job, |text| last_line(&text)),
    }
}

/// Whether the Job can be deleted without interrupting a migration: our container has never started, or it has ended and
/// others keep the pod running.
pub(super) fn is_idle(job: &Job, job_pods: &[Arc<Pod>]) -> bool {
    let pods = pods_of(&job.name_any(), job_pods);
    let status = job.status.clone().unwrap_or_default();
    // A pod that is not in the cache yet may have started its container.
    let active = usize::try_from(status.active.unwrap_or(0)).unwrap_or(usize::MAX);
    let is_known = active <= pods.iter().filter(|pod| !pods::is_finished(pod)).count();
    let is_idle = |pod: &&Arc<Pod>| is_kept_running(pod) || !own_status(pod).is_some_and(has_started);
    is_known && pods.iter().all(is_idle)
}

fn has_started(status: &ContainerStatus) -> bool {
    let states = [status.state.as_ref(), status.last_state.as_ref()];
    let mut states = states.into_iter().flatten();
    status.restart_count > 0 || states.any(|state| state.running.is_some() || state.terminated.is_some())
}

/// Whether our container has ended, and others keep the pod running.
fn is_kept_running(pod: &Pod) -> bool {
    let mut others = container_statuses(pod).filter(|status| status.name != CONTAINER);
    terminated(pod).is_some()
        && !pods::is_finished(pod)
        && others.any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// Whether the Job is complete or has failed.
pub(super) fn has_ended(job: &Job) -> bool {
    ended(job).is_some()
}

/// Returns `Complete` or `Failed` with the message of the condition, or `None` while the Job runs.
fn ended(job: &Job) -> Option<(&str, String)> {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ended = conditions.filter(|condition| {
        condition.status == ConditionStatus::True && (condition.type_ == "Complete" || condition.type_ == "Failed")
    });
    ended.next().map(|condition| (condition.type_.as_str(), condition.message.clone().unwrap_or_default()))
}

/// The pods of a Job, oldest first.
fn pods_of<'a>(job: &str, job_pods: &'a [Arc<Pod>]) -> Vec<&'a Arc<Pod>> {
    let is_of_job = |pod: &&Arc<Pod>| pod.labels().get("batch.kubernetes.io/job-name").is_some_and(|of| of == job);
    let mut pods: Vec<&Arc<Pod>> = job_pods.iter().filter(is_of_job).collect();
    pods.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    pods
}

fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

fn own_status(pod: &Pod) -> Option<&ContainerStatus> {
    container_statuses(pod).find(|status| status.name == CONTAINER)
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    own_status(pod)?.state.as_ref()?.terminated.as_ref()
}

/// Returns the last line that is not empty, cut to the size that the status allows.
fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.chars().take(1000).collect()
}
