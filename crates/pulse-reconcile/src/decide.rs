//! Decides what a reconcile does.

use std::time::Duration;

use jiff::Timestamp;
use pulse_crd::names::Role;

use crate::connections::Use;
use crate::desired::{self, ChildObjects, Inputs};
use crate::leftovers::Leftovers;
use crate::memory::Memory;
use crate::now::Now;
use crate::plan::{self, ReconcilePlan};
use crate::replicas::{self, ReplicaChange};
use crate::rollout::Rollouts;
use crate::seen::Seen;
use crate::workers::{self, Changing, ScalingMemory, ScalingPlan};

/// What a reconcile does.
pub struct Decision {
    /// The revision, the migration, and what is missing.
    pub plan: ReconcilePlan,
    /// All objects, as they should be.
    pub objects: ChildObjects,
    /// Objects to delete.
    pub leftovers: Leftovers,
    /// Numbers of pods that the spec sets.
    pub replicas: Vec<ReplicaChange>,
    /// The number of workers; `None` while there is no Deployment.
    pub workers: Option<ScalingPlan>,
    /// Use of the budget of connections, which holds changes that have to wait; `None` without a budget.
    pub used: Option<Use>,
    /// Time for which a reference has been missing.
    pub missing_duration: Option<Duration>,
    /// Since when a reference has been missing, for the next reconcile.
    pub(crate) missing_since: Option<Timestamp>,
    /// The rollouts that were complete, for the next reconcile.
    pub(crate) rollouts: Rollouts,
    /// State of the scaler, for the next reconcile.
    pub(crate) scaler: ScalingMemory,
}

/// Decides what a reconcile that began at `now` does with what it has `seen`.
pub fn decide(seen: &Seen, memory: &Memory, now: Now) -> Decision {
    let Seen { cr, observed, settings, .. } = seen;
    let plan = plan::plan(cr, observed, &settings.digest_key, now.clock);
    let inputs = Inputs {
        revision: plan.active.as_ref(),
        secrets: plan.secrets.clone(),
        job: plan.migration.create.as_ref(),
        dev_reload: settings.dev_reload.as_deref(),
    };
    let objects = desired::resources(cr, &inputs);
    let leftovers = Leftovers::of(cr, observed, &objects);
    let used = Use::of(cr, observed, now.clock).filter(|_| !cr.spec.paused);
    let rollouts = memory.rollouts.after(observed);
    let changing = Changing {
        rolling_out: rollouts.is_rolling(observed, Role::Worker),
        migrating: plan.migration.waiting.is_some(),
    };
    let poll = settings.intervals.poll;
    let (workers, scaler) =
        workers::decide(cr, observed, seen.sample.as_ref(), changing, poll, memory.workers.clone(), now.clock);
    let missing_since = memory.missing_since.or(Some(now.clock)).filter(|_| !plan.missing.is_empty());
    Decision {
        replicas: replicas::changes(cr, observed, used.as_ref()),
        missing_duration: missing_since.map(|since| now.clock.duration_since(since).unsigned_abs()),
        missing_since,
        plan,
        objects,
        leftovers,
        workers,
        used,
        rollouts,
        scaler,
    }
}
