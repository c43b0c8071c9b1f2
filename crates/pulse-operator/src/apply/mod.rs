//! Applies the desired objects. I/O: every write carries the identity of the object that was observed.
//!
//! All objects are written by server-side apply, so a field that is no longer desired is removed. An object is created
//! complete, with a resource version that no object has: the API server refuses that if the object exists, so the
//! operator never adopts an object of another owner. It is changed with the observed UID, so a deleted object is not
//! created again. The main apply never contains `replicas` after the creation: server-side apply resets a field that
//! its owner drops, and only the scaler owns the number of pods.

mod console;
mod deployment;
mod error;
mod force;
mod guard;
mod jobs;
mod object;
mod replicas;

use std::time::Instant;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::DeleteParams;
use kube::{Client, ResourceExt};

pub(crate) use self::error::ApplyError;
use pulse_crd::names::{REVISION, Role};
use pulse_crd::{PendingChange, PulseIngest};
use pulse_reconcile::apply_memory::ApplyMemory;
use pulse_reconcile::connections::Use;
use pulse_reconcile::desired::{ChildObjects, InvalidObject};
use pulse_reconcile::intervals::Intervals;
use pulse_reconcile::leftovers::Leftovers;
use pulse_reconcile::observed::Observed;
use pulse_reconcile::plan::ReconcilePlan;

/// Result of applying the objects.
#[derive(Debug, Default)]
pub(crate) struct ApplyReport {
    /// Objects that were created, changed or deleted, or would have been with `dry_run`.
    pub changes: Vec<PendingChange>,
    /// Objects that others had changed and that were changed back.
    pub drifted: Vec<String>,
    /// Deployments as the API server returned them. The observed ones do not show a rollout that has just begun.
    pub deployments: Vec<(Role, k8s_openapi::api::apps::v1::Deployment)>,
    /// Changes that replace pods, and wait for the rollouts of other instances.
    pub queued: Vec<String>,
    /// Names of Deployments whose change has to wait, to stay within the budget of connections.
    pub held: Vec<String>,
}

/// Applies the objects of one instance.
pub(crate) struct Applier<'a> {
    /// Client for every write.
    pub client: &'a Client,
    /// Owner of the objects.
    pub cr: &'a PulseIngest,
    /// What was applied before, and what failed.
    pub memory: &'a ApplyMemory,
    /// Delays after a failed request.
    pub intervals: &'a Intervals,
    /// Time of this reconcile.
    pub now: Instant,
    /// Whether a rollout of this instance may begin now, or has begun before.
    pub may_roll: &'a (dyn Fn() -> bool + Send + Sync),
    /// Use of the budget of connections, which holds changes that have to wait.
    pub used: Option<&'a Use>,
    /// Records changes in the report without making them.
    pub dry_run: bool,
}

impl Applier<'_> {
    /// Applies all objects in order. `initial` returns the number of pods with which a Deployment is created. An error
    /// with one object does not keep the others from being applied; only Deployments of a new revision wait for the
    /// ServiceAccounts and for the Deployments before them.
    ///
    /// # Errors
    /// The first error. What was applied before and after it stays and is in `report`; the next reconcile continues.
    pub(crate) async fn apply(
        &self,
        resources: ChildObjects,
        observed: &Observed,
        plan: &ReconcilePlan,
        initial: impl Fn(Role) -> i32,
        report: &mut ApplyReport,
    ) -> Result<(), ApplyError> {
        let ChildObjects { service_accounts, migration, services, disruption_budgets, deployments, invalid } =
            resources;
        // A Deployment that cannot be built is before those after it, as one that cannot be applied.
        let mut before_pods = invalid.into_iter().next().map_or(Ok(()), |invalid| {
            let InvalidObject { kind, name, message } = invalid;
            Err(ApplyError::Invalid { kind, name, message })
        });
        for object in service_accounts {
            let live = observed.service_accounts.get(&object.name_any()).map(AsRef::as_ref);
            before_pods = before_pods.and(self.converge(object, live, report).await);
        }
        let mut others = self.delete_jobs(&plan.migration.delete, observed, report).await;
        if let Some(job) = migration {
            others = others.and(self.create_job(&job, observed, report).await);
        }
        for object in services {
            let live = observed.services.get(&object.name_any()).map(AsRef::as_ref);
            others = others.and(self.converge(object, live, report).await);
        }
        let desired: Vec<String> = disruption_budgets.iter().map(ResourceExt::name_any).collect();
        for object in disruption_budgets {
            let live = observed.disruption_budgets.get(&object.name_any()).map(AsRef::as_ref);
            others = others.and(self.converge(object, live, report).await);
        }
        for (role, deployment) in deployments {
            let live = observed.deployments.get(&role).map(AsRef::as_ref);
            let same_revision =
                live.is_some_and(|live| live.annotations().get(REVISION) == deployment.annotations().get(REVISION));
            // A new revision is not started before the objects that it depends on.
            let is_next = before_pods.is_ok() && report.held.is_empty();
            if is_next || same_revision {
                let applied = self.converge_deployment(role, deployment, live, initial(role), report).await;
                before_pods = before_pods.and(applied);
            }
        }
        // Last, when the objects that replace them exist.
        for (name, live) in &observed.disruption_budgets {
            if !desired.contains(name) && live.metadata.deletion_timestamp.is_none() {
                others = others
                    .and(self.delete::<PodDisruptionBudget>(live, None, DeleteParams::background(), report).await);
            }
        }
        others = others.and(self.delete_leftovers(&Leftovers::of(self.cr, observed), report).await);
        let expired = self.expire_jobs(&plan.migration.expire, observed).await;
        before_pods.and(others).and(expired)
    }
}
