//! Applies the objects of one instance, in their order.
//!

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kube::{Client, ResourceExt};
use pulse_crd::PulseIngest;
use pulse_crd::names::REVISION;
use pulse_reconcile::apply_memory::ApplyMemory;
use pulse_reconcile::connections::Use;
use pulse_reconcile::decide::Decision;
use pulse_reconcile::desired::{ChildObjects, InvalidObject};
use pulse_reconcile::done::ApplyReport;
use pulse_reconcile::error::ReconcileError;
use pulse_reconcile::intervals::Intervals;
use pulse_reconcile::observed::Observed;
use pulse_reconcile::replicas;

/// Applies the objects of one instance.
pub(crate) struct Applier<'a> {
    /// Client for every write.
    pub client: &'a Client,
    /// Owner of the objects.
    pub cr: &'a PulseIngest,
    /// What was applied before, and what failed.
    pub memory: &'a Mutex<ApplyMemory>,
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
    /// What was applied before, and what failed. Not kept while a request is made.
    pub(super) fn memory(&self) -> MutexGuard<'_, ApplyMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies all objects in order. An error
    /// with one object does not keep the others from being applied; only Deployments of a new revision wait for the
    /// ServiceAccounts and for the Deployments before them.
    ///
    /// # Errors
    /// The first error. What was applied before and after it stays and is in `report`; the next reconcile continues.
    pub(super) async fn objects(
        &self,
        decision: &Decision,
        observed: &Observed,
        report: &mut ApplyReport,
    ) -> Result<(), ReconcileError> {
        let ChildObjects { service_accounts, migration, services, disruption_budgets, deployments, invalid } =
            decision.objects.clone();
        // A Deployment that cannot be built is before those after it, as one that cannot be applied.
        let mut before_pods = invalid.into_iter().next().map_or(Ok(()), |invalid| {
            let InvalidObject { kind, name, message } = invalid;
            Err(ReconcileError::InvalidPodTemplate { object: format!("{kind} {name}"), message })
        });
        for object in service_accounts {
            let live = observed.service_accounts.get(&object.name_any()).map(AsRef::as_ref);
            before_pods = before_pods.and(self.converge(object, live, report).await);
        }
        let mut others = self.delete_jobs(&decision.plan.migration.delete, observed, report).await;
        if let Some(job) = migration {
            others = others.and(self.create_job(&job, observed, report).await);
        }
        for object in services {
            let live = observed.services.get(&object.name_any()).map(AsRef::as_ref);
            others = others.and(self.converge(object, live, report).await);
        }
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
                let applied =
                    self.converge_deployment(role, deployment, live, replicas::initial(self.cr, role), report).await;
                before_pods = before_pods.and(applied);
            }
        }
        // Last, when the objects that replace them exist.
        others = others.and(self.delete_leftovers(&decision.leftovers, report).await);
        let expired = self.expire_jobs(&decision.plan.migration.expire, observed).await;
        before_pods.and(others).and(expired)
    }
}
