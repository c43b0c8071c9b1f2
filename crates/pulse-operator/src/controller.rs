//! One reconcile of an object: observe → decide → apply → conclude → publish.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use pulse_crd::{PulseIngest, names};
use pulse_reconcile::conclude::conclude;
use pulse_reconcile::decide::decide;
use pulse_reconcile::error::{ReconcileError, Requeue};
use pulse_reconcile::memory::Memory;
use pulse_reconcile::now::Now;
use pulse_reconcile::{events, owner};

use crate::apply::apply;
use crate::context::{Context, key};
use crate::instances::Readable;
use crate::jitter::jittered;
use crate::observe::observe;
use crate::publish::{Published, publish, publish_events};

/// Time limit of a reconcile. A longer one is aborted, so that it does not block the object.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);

/// Reconciles an object once. Only observing, applying and publishing do I/O.
///
/// # Errors
/// [`ReconcileError`] if nothing was done. What happens later is part of the result.
async fn reconcile_object(
    context: &Context,
    object: &PulseIngest,
    memory: &Memory,
) -> Result<Published, ReconcileError> {
    let now = Now { clock: Timestamp::now(), instant: Instant::now() };
    let seen = observe(context, object, memory, now).await?;
    let decision = decide(&seen, memory, now);
    let done = apply(context, &seen, &decision, &memory.applied, now).await;
    let (conclusion, memory) = conclude(seen, decision, done, memory, now);
    Ok(publish(context, conclusion, memory, now).await)
}

/// Reconciles an object for kube's applier, and returns when to reconcile it again.
pub(crate) async fn reconcile(object: Arc<Readable>, context: Arc<Context>) -> Result<Action, Infallible> {
    let started = Instant::now();
    if object.meta().deletion_timestamp.is_some() {
        context.forget(&object.namespace().unwrap_or_default(), &object.name_any());
        return Ok(Action::await_change());
    }
    let cr = match &object.0 {
        Ok(cr) => cr,
        Err(invalid) => return Ok(leave_unreadable(&object, &invalid.error, &context).await),
    };
    let before = context.memory(key(cr));
    let limited = tokio::time::timeout(RECONCILE_TIMEOUT, reconcile_object(&context, cr, &before)).await;
    let (result, memory) = match limited.unwrap_or(Err(ReconcileError::TimedOut(RECONCILE_TIMEOUT))) {
        Ok(Published { next, memory }) => (next, memory),
        Err(error) => (Err(error), Memory::clone(&before)),
    };
    let intervals = &context.settings.intervals;
    let (label, next, memory) = match result {
        Ok(next) => {
            let label = if memory.applied.has_failures() { "error" } else { "ok" };
            (label, next, Memory { failures: 0, ..memory })
        }
        Err(error) => {
            let memory = report(&error, cr, &context, memory).await;
            match error.requeue() {
                Requeue::Reconcile => {
                    ("error", intervals.after(memory.failures), Memory { failures: memory.failures + 1, ..memory })
                }
                Requeue::Child | Requeue::Usual => ("ok", intervals.secrets, memory),
            }
        }
    };
    context.remember(key(cr), memory);
    context.metrics.reconciled(label, started.elapsed().as_secs_f64());
    Ok(Action::requeue(jittered(next)))
}

/// Reports an object that only a newer version can read. Its pods stay as they are, and all other objects are reconciled.
async fn leave_unreadable(object: &Readable, error: &str, context: &Context) -> Action {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    tracing::error!(object = format!("{namespace}/{name}"), error, "cannot read the object: upgrade the operator");
    // Samples would trigger more reconciles.
    context.forget(&namespace, &name);
    context.metrics.set_unreadable(&namespace, &name);
    publish_events(&context.recorder, &object.object_ref(&()), vec![events::unreadable(error)]).await;
    Action::await_change()
}

/// Reports why an object was not reconciled. That another operator reconciles it is reported once.
async fn report(error: &ReconcileError, cr: &PulseIngest, context: &Context, memory: Memory) -> Memory {
    let object = names::instance_id(cr);
    let ReconcileError::OtherOperator(other) = error else {
        tracing::warn!(object, %error, "reconcile failed");
        return memory;
    };
    if memory.other_operator.as_ref() != Some(other) {
        let explanation = owner::explain(cr, other, &context.identity);
        tracing::warn!(object, "{explanation}");
        let event = events::not_reconciled(&explanation);
        publish_events(&context.recorder, &cr.object_ref(&()), vec![event]).await;
        context.disown(&key(cr));
    }
    Memory { other_operator: Some(other.clone()), ..memory }
}
