//! Applies a decision. I/O: every write carries the identity of the object that was observed.
//!
//! All objects are written by server-side apply, so a field that is no longer desired is removed. An object is created
//! complete, with a resource version that no object has: the API server refuses that if the object exists, so the
//! operator never adopts an object of another owner. It is changed with the observed UID, so a deleted object is not
//! created again. The main apply never contains `replicas` after the creation: server-side apply resets a field that
//! its owner drops, and only the scaler owns the number of pods.

mod applier;
mod console;
mod deployment;
mod force;
mod guard;
mod jobs;
mod object;
mod replicas;
mod workers;

use std::sync::{Mutex, PoisonError};

pub(crate) use applier::Applier;
use pulse_reconcile::apply_memory::ApplyMemory;
use pulse_reconcile::decide::Decision;
use pulse_reconcile::done::{ApplyReport, Done};
use pulse_reconcile::now::Now;
use pulse_reconcile::plan;
use pulse_reconcile::seen::Seen;

use crate::context::{Context, key};

/// Applies a decision about what was `seen`: the objects, then the numbers of pods. Returns what became of it.
pub(crate) async fn apply(context: &Context, seen: &Seen, decision: &Decision, memory: &ApplyMemory, now: Now) -> Done {
    let (instance, known) = (key(&seen.cr), context.caches.objects.count());
    let memory = Mutex::new(memory.clone());
    let applier = Applier {
        client: &context.client,
        cr: &seen.cr,
        memory: &memory,
        intervals: &context.settings.intervals,
        now: now.instant,
        may_roll: &|| context.rollout_queue.may_begin(&instance, known),
        used: decision.used.as_ref(),
        dry_run: seen.cr.spec.paused,
    };
    let mut report = ApplyReport::default();
    let objects = applier.objects(decision, &seen.observed, &mut report).await;
    let replicas = applier.replicas(&decision.replicas, &mut report).await;
    // After an error, the next sample triggers another decision.
    let workers = applier.workers(decision.workers.as_ref(), &context.metrics, &mut report).await;
    let contested = applier.memory().fights.contested(now.instant).filter(|_| !applier.dry_run);
    let queued = (!report.queued.is_empty()).then(|| plan::queued(&report.queued));
    let (scaled, unscaled) = workers.map_or_else(|error| (None, Some(error)), |scaled| (scaled, None));
    Done {
        problem: objects.and(replicas).err().or(contested).or(queued).or(unscaled),
        scaled,
        report,
        memory: memory.into_inner().unwrap_or_else(PoisonError::into_inner),
    }
}
