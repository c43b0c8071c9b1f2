//! The executor: runs claimed tasks on the processor threads and sends their outcomes to the settle loop.

use std::sync::Arc;
use std::time::Instant;

use pulse_core::ClaimedTask;
use pulse_store::{Outcome, Settlement};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument;
use tracing::field::Empty;

use crate::busy::BusyTime;
use crate::in_flight::InFlight;
use crate::metrics::WorkerMetrics;
use crate::prefetch::PrefetchLimit;
use crate::processor::Processor;
use crate::{WorkerConfig, WorkerHealth, attempt};

pub(crate) struct Executor {
    /// The runtime of the processor threads.
    pub(crate) runtime: Handle,
    /// One permit for each attempt that may run concurrently.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) settlements: mpsc::UnboundedSender<Settlement>,
    pub(crate) in_flight: InFlight,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) prefetch: PrefetchLimit,
    pub(crate) busy: BusyTime,
    pub(crate) health: WorkerHealth,
    pub(crate) config: Arc<WorkerConfig>,
}

impl Executor {
    /// Starts an attempt, which waits for a free slot. The task must be in flight already.
    pub(crate) fn start(&self, task: ClaimedTask) {
        let (id, fencing_token) = (task.id, task.fencing_token);
        let abort = self.runtime.spawn(self.attempt(task)).abort_handle();
        self.in_flight.set_abort(id, fencing_token, abort);
    }

    fn attempt(&self, task: ClaimedTask) -> impl Future<Output = ()> + use<> {
        let span = tracing::info_span!(
            "process_task",
            task_id = %task.id,
            attempt = task.attempt,
            request_id = task.request_id,
            trace_id = Empty
        );
        if let Some(traceparent) = &task.traceparent {
            (self.config.link_trace)(&span, traceparent);
        }
        let (slots, processor, settlements) = (self.slots.clone(), self.processor.clone(), self.settlements.clone());
        let (in_flight, metrics, prefetch, busy, config) = (
            self.in_flight.clone(),
            self.metrics.clone(),
            self.prefetch.clone(),
            self.busy.clone(),
            self.config.clone(),
        );
        let health = self.health.clone();
        async move {
            let Ok(_slot) = slots.acquire().await else { return };
            if !in_flight.begin(task.id, task.fencing_token) {
                return;
            }
            // Dropped however the attempt ends: a stuck processor that returns is not stuck any more.
            let _stuck_guard = health.stuck_guard(task.id, task.fencing_token);
            let running = busy.processor();
            let started = Instant::now();
            let outcome = if task.events.len() < task.event_count {
                Outcome::Orphaned
            } else {
                match attempt::run(&task, &*processor, config.timeout).await {
                    Ok(effects) => Outcome::Completed(effects),
                    Err(error) => {
                        let (now, random) = (chrono::Utc::now(), rand::random());
                        attempt::failed(task.attempt, task.max_attempts, error, &config.retry, now, random)
                    }
                }
            };
            drop(running);
            let duration = started.elapsed();
            metrics.processing_seconds.observe(duration.as_secs_f64());
            prefetch.record(duration);
            if in_flight.end(task.id, task.fencing_token) {
                let _ = settlements.send(Settlement { task_id: task.id, fencing_token: task.fencing_token, outcome });
            }
        }
        .instrument(span)
    }
}
