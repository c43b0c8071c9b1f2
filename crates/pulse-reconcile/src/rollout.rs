//! Whether the pods of a Deployment are being replaced. Pure.
//!
//! Scaling, a restarted pod and a drained node are no rollout: the same pods come back. They differ from one in that the
//! newest template was rolled out completely before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use kube_core::ResourceExt;
use pulse_crd::PulseIngest;
use pulse_crd::names::{APPLIED, Role};

use crate::condition::ConditionStatus;
use crate::observed::Observed;
use crate::pods;
use crate::replicas;

/// Time that a role may have no ready pod without a rollout: the pods restart, or their node is drained.
const RESTART: Duration = Duration::from_secs(120);

/// Progress of a rollout, with the reason and the message of the condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The newest template is rolled out.
    Done,
    /// Time may help.
    Unfinished(&'static str, String),
    /// A person has to act.
    Stuck(String),
}

impl Progress {
    /// Adds why a pod of the role does not start.
    fn because_of(self, observed: &Observed, role: Role) -> Self {
        let pods = observed.pods.get(&role).into_iter().flatten();
        let mut failures = pods.filter_map(|pod| Some((pod.name_any(), pods::explained_failure(pod)?)));
        let Some((pod, failure)) = failures.next() else { return self };
        let explained = |message: String| format!("{message}; pod {pod}: {failure}");
        match self {
            Self::Done => Self::Done,
            Self::Unfinished(reason, message) => Self::Unfinished(reason, explained(message)),
            Self::Stuck(message) => Self::Stuck(explained(message)),
        }
    }

    /// The most urgent one is reported: what needs an action before what only needs time.
    fn urgency(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Unfinished("RolloutInProgress", _) => 1,
            Self::Unfinished(..) => 2,
            Self::Stuck(_) => 3,
        }
    }
}

/// The applied objects that were rolled out completely, as their hashes. Can be lost.
#[derive(Debug, Clone, Default)]
pub struct Rollouts(BTreeMap<Role, String>);

impl Rollouts {
    /// The memory with the complete rollouts among the Deployments.
    #[must_use]
    pub fn after(&self, observed: &Observed) -> Self {
        let complete = |(role, deployment): (&Role, &Arc<Deployment>)| {
            let is_complete = self.of(*role, deployment) == Progress::Done && is_seen(deployment);
            let hash = if is_complete { deployment.annotations().get(APPLIED) } else { None };
            // A Deployment that is created again is a new rollout.
            Some((*role, hash.or_else(|| self.0.get(role))?.clone()))
        };
        Self(observed.deployments.iter().filter_map(complete).collect())
    }

    /// Reports whether the pods of a role are being replaced.
    pub fn is_rolling(&self, observed: &Observed, role: Role) -> bool {
        observed.deployments.get(&role).is_some_and(|deployment| self.of(role, deployment) != Progress::Done)
    }

    /// Follows `kubectl rollout status` until the rollout is complete.
    fn of(&self, role: Role, deployment: &Deployment) -> Progress {
        let name = deployment.name_any();
        let in_progress = |message| Progress::Unfinished("RolloutInProgress", message);
        let Some(status) = &deployment.status else {
            return in_progress(format!("Deployment {name} has no status yet"));
        };
        let was_complete = self.0.get(&role).is_some_and(|hash| deployment.annotations().get(APPLIED) == Some(hash));
        // A status of an earlier spec does not describe this one. If only the number of pods has changed, it does.
        if !is_seen(deployment) {
            return if was_complete {
                Progress::Done
            } else {
                in_progress(format!("Deployment {name} has a new spec that its controller has not observed yet"))
            };
        }
        let desired = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let updated = status.updated_replicas.unwrap_or(0);
        let ready = status.ready_replicas.unwrap_or(0);
        let old = status.replicas.unwrap_or(0) - updated;
        let progressing = find(deployment, "Progressing");
        let has_reason = |reason: &str| progressing.is_some_and(|found| found.reason.as_deref() == Some(reason));
        if old <= 0 && (was_complete || has_reason("NewReplicaSetAvailable") || updated.min(ready) >= desired) {
            return Progress::Done;
        }
        let rejected = rejected(deployment);
        if has_reason("ProgressDeadlineExceeded") {
            let message = progressing.and_then(|found| found.message.clone());
            let message = rejected.or(message).unwrap_or_else(|| "its progress deadline is exceeded".into());
            return Progress::Stuck(format!("Deployment {name} makes no progress: {message}; check its new pods"));
        }
        match rejected {
            Some(message) => {
                Progress::Unfinished("PodsRejected", format!("pods of Deployment {name} are rejected: {message}"))
            }
            None => in_progress(format!(
                "Deployment {name} is rolling out: {ready} of {desired} pods are ready, {updated} updated, {old} outdated"
            )),
        }
    }
}

/// The progress of all Deployments. `held` names those whose change has to wait.
pub fn progress(
    cr: &PulseIngest,
    observed: &Observed,
    rollouts: &Rollouts,
    held: &[String],
    now: Timestamp,
) -> Progress {
    let in_progress = |message| Progress::Unfinished("RolloutInProgress", message);
    let deployments: Vec<_> =
        Role::of(&cr.spec).filter_map(|role| Some((role, observed.deployments.get(&role)?))).collect();
    if deployments.len() < Role::of(&cr.spec).count() {
        return in_progress("not every Deployment has been created yet".into());
    }
    let mut progress = Progress::Done;
    for (role, deployment) in deployments {
        let name = deployment.name_any();
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let desired = if cr.spec.stopped { Some(0) } else { replicas::fixed(cr, role) };
        let next = if held.contains(&name) {
            in_progress(format!(
                "Deployment {name} waits until pods that terminate have ended, because of database.maxConnectionsTotal"
            ))
        } else if let Some(desired) = desired.filter(|desired| *desired != replicas) {
            in_progress(format!("Deployment {name} is being scaled from {replicas} to {desired} replicas"))
        } else {
            match rollouts.of(role, deployment) {
                Progress::Done => failing(role, deployment, now),
                unfinished => unfinished.because_of(observed, role),
            }
        };
        if next.urgency() > progress.urgency() {
            progress = next;
        }
    }
    progress
}

/// What keeps a Deployment from its pods although its rollout was complete.
fn failing(role: Role, deployment: &Deployment, now: Timestamp) -> Progress {
    let name = deployment.name_any();
    // Workers that are rejected limit the scaling, and the others work.
    if let Some(message) = rejected(deployment).filter(|_| role != Role::Worker) {
        return Progress::Unfinished("PodsRejected", format!("pods of Deployment {name} are rejected: {message}"));
    }
    let wants_pods = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1) > 0;
    let is_ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0) > 0;
    let available = find(deployment, "Available").filter(|found| found.status == ConditionStatus::False);
    let since =
        available.and_then(|found| found.last_transition_time.as_ref()).map(|since| now.duration_since(since.0));
    let is_long = since.and_then(|since| Duration::try_from(since).ok()).is_some_and(|since| since >= RESTART);
    if wants_pods && !is_ready && is_long {
        return Progress::Unfinished("PodsNotReady", format!("no pod of Deployment {name} is ready: check its pods"));
    }
    Progress::Done
}

/// Why the pods of a role are rejected: by a quota, a LimitRange, Pod Security, or an admission policy.
pub fn rejection(observed: &Observed, role: Role) -> Option<String> {
    rejected(observed.deployments.get(&role)?)
}

fn rejected(deployment: &Deployment) -> Option<String> {
    let failure = find(deployment, "ReplicaFailure").filter(|found| found.status == ConditionStatus::True)?;
    Some(failure.message.clone().unwrap_or_else(|| "no details are reported".into()))
}

fn find<'a>(deployment: &'a Deployment, name: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == name)
}

/// Whether the Deployment's controller has seen the newest spec.
fn is_seen(deployment: &Deployment) -> bool {
    let seen = deployment.status.as_ref().and_then(|status| status.observed_generation);
    seen.is_some() && seen >= deployment.metadata.generation
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
