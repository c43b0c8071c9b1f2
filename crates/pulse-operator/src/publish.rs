//! Publishes a conclusion: metrics, the status, Events, and the decisions for the console.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder};
use kube::{Resource, ResourceExt};
use pulse_crd::{PulseIngest, PulseIngestStatus, WorkersStatus, names};
use pulse_reconcile::conclude::Conclusion;
use pulse_reconcile::error::ReconcileError;
use pulse_reconcile::events::Event;
use pulse_reconcile::memory::Memory;
use pulse_reconcile::now::Now;

use crate::apply::Applier;
use crate::context::{Context, key};
use crate::{decisions_writer, status_writer};

/// Time until the next reconcile if the status has to be computed again.
const AGAIN: Duration = Duration::from_secs(1);

/// A reconcile that has ended.
pub(crate) struct Published {
    /// Time until the next one, if nothing triggers one before.
    pub(crate) next: Result<Duration, ReconcileError>,
    /// What it remembers.
    pub(crate) memory: Memory,
}

/// Publishes the conclusion of a reconcile that began at `now`, and adds what was written to its memory.
pub(crate) async fn publish(context: &Context, conclusion: Conclusion, memory: Memory, now: Now) -> Published {
    let Conclusion { cr, status, events, decisions, is_rolling, is_queued, next } = conclusion;
    record(&cr, context, &status);
    context.observe_rollout(&key(&cr), is_rolling, is_queued);
    let served = context.served.borrow().clone();
    let written = match status_writer::write(&context.client, &cr, &served, status).await {
        Ok(written) => written.or_else(|| memory.written.clone()),
        // The next reconcile finds the same changes again, and publishes their Events.
        Err(error) => return Published { next: Err(error), memory },
    };
    publish_events(&context.recorder, &cr.object_ref(&()), events).await;
    let had_failed = memory.decisions.failure.is_some();
    let memory = write_decisions(context, &cr, decisions, Memory { written, ..memory }, now).await;
    // The status reports whether the decisions can be written.
    let again = (memory.decisions.failure.is_some() != had_failed).then_some(AGAIN);
    let retry = memory.applied.next_attempt(now.instant);
    Published { next: Ok([again, retry].into_iter().flatten().fold(next, Duration::min)), memory }
}

/// Sets the metrics of the object.
fn record(cr: &PulseIngest, context: &Context, status: &PulseIngestStatus) {
    let backlog = status.autoscaling.as_ref().and_then(|scaling| scaling.backlog);
    let WorkersStatus { desired, ready, .. } = status.workers;
    let (namespace, name) = (names::namespace(cr), cr.name_any());
    context.metrics.record(&namespace, &name, desired, ready, backlog);
    context.metrics.record_conditions(&namespace, &name, &status.conditions);
}

/// Publishes Events. An error is only logged: the Event is lost, and the reconcile continues.
pub(crate) async fn publish_events(recorder: &Recorder, object: &ObjectReference, events: Vec<Event>) {
    for Event { is_warning, reason, action, note } in events {
        let type_ = if is_warning { EventType::Warning } else { EventType::Normal };
        let event = KubeEvent { type_, reason, note: Some(note), action, secondary: None };
        if let Err(error) = recorder.publish(&event, object).await {
            tracing::warn!(object = object.name, reason = event.reason, %error, "cannot publish an Event");
        }
    }
}

/// Writes the decisions for the console, as a copy of the status, which is written during a pause, too.
async fn write_decisions(
    context: &Context,
    cr: &PulseIngest,
    decisions: Option<ConfigMap>,
    memory: Memory,
    now: Now,
) -> Memory {
    let applied = Mutex::new(memory.applied);
    let applier = Applier {
        client: &context.client,
        cr,
        memory: &applied,
        intervals: &context.settings.intervals,
        now: now.instant,
        may_roll: &|| true,
        used: None,
        dry_run: false,
    };
    let decisions = decisions_writer::write(&applier, decisions, memory.decisions).await;
    let applied = applied.into_inner().unwrap_or_else(PoisonError::into_inner);
    Memory { decisions, applied, ..memory }
}
