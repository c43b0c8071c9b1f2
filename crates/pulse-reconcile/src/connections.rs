//! The budget of connections to PostgreSQL (`database.maxConnectionsTotal`): how many pods fit, also while they are
//! replaced. Pure.
//!
//! Kubernetes does not count a terminating pod, which keeps its connections until it ends, and starts its successor at
//! once. Two rules bound the pods of a role to [`most_pods`], with a budget:
//!
//! * A new pod counts as available only after a whole grace period (`minReadySeconds`). A rollout continues when a new pod
//!   is available; whatever it stopped before that pod existed has then ended. So [`surge`] pods more than wanted run at
//!   most, and as many terminate.
//! * The operator begins nothing that adds pods while pods of an earlier change terminate: [`Use::holds`] and
//!   [`Use::room_for_workers`]. Fewer pods in the middle of a rollout stop some that it replaces a moment later, so it removes
//!   none either while there are more than a rollout has: [`Use::holds_removal`].
//!
//! Pods that other clients delete or evict are replaced at once and not counted.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pulse_core::defaults::{
    API_DEDICATED, CONSOLE_DEDICATED, CONSOLE_POOL, PROBE_CONNECTIONS, SMALL_POOL, WORKER_DEDICATED,
};
use pulse_crd::names::{CONNECTIONS, Role};
use pulse_crd::{PulseIngest, PulseIngestSpec};

use crate::observed::Observed;
use crate::pods;

/// Connections left for a migration, an administrator and a backup.
const RESERVED: u32 = 4;
/// Time after its grace period in which a kubelet has ended a pod.
const KILL_DELAY: SignedDuration = SignedDuration::from_secs(5);

/// Pods that a rollout of `replicas` pods adds at most, at a `maxSurge` of 25 %.
const fn surge(replicas: u32) -> u32 {
    replicas.div_ceil(4)
}

/// The most pods of a role that have connections at the same time, while `replicas` of them are wanted.
pub fn most_pods(replicas: u32) -> u32 {
    replicas + 2 * surge(replicas)
}

/// Pooled connections of a pod of the role.
pub fn pool(spec: &PulseIngestSpec, role: Role) -> u32 {
    match role {
        Role::Api => spec.api.database_pool_size,
        Role::Worker => spec.workers.database_pool_size,
        Role::Scheduler => SMALL_POOL,
        Role::Console => CONSOLE_POOL,
    }
}

/// Maximum number of connections of a pod of the role.
pub fn per_pod(spec: &PulseIngestSpec, role: Role) -> u32 {
    let dedicated = match role {
        Role::Api => API_DEDICATED,
        Role::Worker => WORKER_DEDICATED,
        Role::Scheduler => 0,
        Role::Console => CONSOLE_DEDICATED,
    };
    pool(spec, role) + PROBE_CONNECTIONS + dedicated
}

/// Maximum number of workers within the budget, beside `api` API pods, schedulers and consoles; at least 1, so that a worker
/// always runs. `None` without a budget.
pub fn max_workers(spec: &PulseIngestSpec, api: u32) -> Option<u32> {
    let others: u32 =
        fixed(spec, api).into_iter().map(|(role, replicas)| per_pod(spec, role) * most_pods(replicas)).sum();
    let total = spec.database.max_connections_total?;
    let pods = total.saturating_sub(others + RESERVED) / per_pod(spec, Role::Worker);
    Some(workers_within(pods))
}

/// The roles whose number of pods does not depend on the backlog, with that number: `api` pods of the API.
fn fixed(spec: &PulseIngestSpec, api: u32) -> [(Role, u32); 3] {
    let consoles = if spec.console.enabled { spec.console.replicas } else { 0 };
    [(Role::Api, api), (Role::Scheduler, spec.scheduler.replicas), (Role::Console, consoles)]
}

/// The largest number of workers, at least 1, whose rollout needs no more than `pods` pods.
fn workers_within(pods: u32) -> u32 {
    (1..=pods).rev().find(|workers| most_pods(*workers) <= pods).unwrap_or(1)
}

/// What the pods of an instance use of its budget.
pub struct Use {
    /// The budget, without what is reserved.
    total: u32,
    roles: BTreeMap<Role, RoleUse>,
    /// Maximum number of workers, as the spec stands.
    max_workers: u32,
}

/// What the pods of one role use.
#[derive(Debug, Clone, Copy, Default)]
struct RoleUse {
    /// Pods that the Deployment has.
    replicas: u32,
    /// Pods that it will have, as the spec stands.
    wanted_replicas: u32,
    /// Pods that have connections.
    pods: u32,
    terminating: u32,
    /// Connections of a new pod, as the spec stands.
    wanted: u32,
    /// The most connections of a pod that exists, or of the Deployment's template; 0 without any.
    most: u32,
}

impl RoleUse {
    /// Pods beyond those of a rollout: they terminate, or are about to.
    fn surplus(self) -> u32 {
        self.pods.saturating_sub(self.replicas + surge(self.replicas))
    }

    /// The most connections of a pod that exists or will exist.
    fn per_pod(self) -> u32 {
        self.most.max(self.wanted)
    }

    /// The most connections of the role at any time from now on, as the spec stands.
    fn demand(self) -> u32 {
        self.per_pod() * (most_pods(self.replicas.max(self.wanted_replicas)) + self.terminating)
    }

    /// Whether connections of the role are about to be freed.
    fn is_shrinking(self) -> bool {
        self.terminating > 0 || self.most > self.wanted || self.replicas > self.wanted_replicas
    }
}

impl Use {
    /// What the pods of `cr` use; `None` without a budget.
    pub fn of(cr: &PulseIngest, observed: &Observed, now: Timestamp) -> Option<Self> {
        let total = cr.spec.database.max_connections_total?.saturating_sub(RESERVED);
        let max_workers = max_workers(&cr.spec, api_replicas(&cr.spec, observed))?;
        let mut roles = BTreeMap::from(Role::ALL.map(|role| (role, role_use(&cr.spec, role, observed, now))));
        for (role, wanted) in fixed(&cr.spec, api_replicas(&cr.spec, observed)) {
            roles.entry(role).and_modify(|found| found.wanted_replicas = wanted);
        }
        roles.entry(Role::Worker).and_modify(|found| found.wanted_replicas = found.replicas.min(max_workers));
        Some(Self { total, roles, max_workers })
    }

    /// Maximum number of workers for now: fewer than the budget allows while other pods terminate. At least 1, and at
    /// least those that are there: removing some of them would not free their connections.
    pub fn room_for_workers(&self) -> u32 {
        let workers = self.role(Role::Worker);
        let others = self.roles.iter().filter(|(role, _)| **role != Role::Worker);
        let others: u32 = others.map(|(_, used)| used.demand()).sum();
        let pods = self.total.saturating_sub(others) / workers.per_pod().max(1);
        let room = workers_within(pods.saturating_sub(workers.terminating));
        room.max(workers.replicas).min(self.max_workers)
    }

    /// Whether the pods of `role` must not be replaced, or with `adds_pods` not be added, for now. Waiting helps: the pods
    /// in the way are about to end. A budget that is too small for the spec holds nothing.
    pub fn holds(&self, role: Role, adds_pods: bool) -> bool {
        let RoleUse { terminating, wanted, most, .. } = self.role(role);
        let fits = self.roles.values().map(|role| role.demand()).sum::<u32>() <= self.total;
        let is_shrinking = self.roles.values().any(|role| role.is_shrinking());
        terminating > 0 || ((adds_pods || wanted > most) && !fits && is_shrinking)
    }

    /// Whether no pods of `role` must be removed for now. Waiting helps, because some of them terminate: those of a rollout
    /// alone are no more than these.
    pub fn holds_removal(&self, role: Role) -> bool {
        self.role(role).surplus() > 0
    }

    fn role(&self, role: Role) -> RoleUse {
        self.roles.get(&role).copied().unwrap_or_default()
    }
}

/// The number of API pods: that of the spec, or that which another controller has set.
pub fn api_replicas(spec: &PulseIngestSpec, observed: &Observed) -> u32 {
    let found = spec.api.autoscaling.as_ref().and_then(|_| replicas(observed, Role::Api));
    found.unwrap_or(spec.api.replicas)
}

fn replicas(observed: &Observed, role: Role) -> Option<u32> {
    let replicas = observed.deployments.get(&role)?.spec.as_ref()?.replicas.unwrap_or(1);
    Some(u32::try_from(replicas).unwrap_or(0))
}

fn role_use(spec: &PulseIngestSpec, role: Role, observed: &Observed, now: Timestamp) -> RoleUse {
    let pods =
        observed.pods.get(&role).into_iter().flatten().filter(|pod| !pods::is_finished(pod) && !is_lost(pod, now));
    let wanted = per_pod(spec, role);
    let mut found = RoleUse { replicas: replicas(observed, role).unwrap_or(0), wanted, ..RoleUse::default() };
    for pod in pods {
        found.pods += 1;
        found.terminating += u32::from(pods::is_terminating(pod));
        found.most = found.most.max(connections(&pod.metadata).unwrap_or(wanted));
    }
    let template = observed.deployments.get(&role).and_then(|found| found.spec.as_ref()?.template.metadata.as_ref());
    found.most = found.most.max(template.and_then(connections).unwrap_or(0));
    // Also pods that are about to be stopped, because the number was reduced.
    found.terminating = found.terminating.max(found.surplus());
    found
}

fn connections(metadata: &ObjectMeta) -> Option<u32> {
    metadata.annotations.as_ref()?.get(CONNECTIONS)?.parse().ok()
}

/// Whether the pod is past its grace period: the kubelet of a lost node does not remove its pods.
fn is_lost(pod: &Pod, now: Timestamp) -> bool {
    let ends = pod.metadata.deletion_timestamp.as_ref();
    ends.is_some_and(|ends| now.duration_since(ends.0) >= KILL_DELAY)
}

#[cfg(test)]
#[path = "connections_tests.rs"]
mod tests;
