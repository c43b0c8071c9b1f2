//! The executor: runs claimed tasks on the processor threads and sends their outcomes to the settle loop.

use std::sync::Arc;
use std::time::Instant;

use pulse_core::ClaimedTask;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument;
use tracing::field::Empty;

use crate::attempt::{self, FailurePolicy};
use crate::attempt_time::AttemptTime;
use crate::config::WorkerConfig;
use crate::health::WorkerHealth;
use crate::in_flight::{EndedAttempt, InFlight};
use crate::leased_task::LeasedTask;
use crate::metrics::WorkerMetrics;
use crate::prefetch::PrefetchLimit;
use crate::processor::Processor;

pub(crate) struct Executor {
    /// The runtime of the processor threads.
    pub(crate) runtime: Handle,
    /// One permit for each attempt that may run concurrently.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) ended_attempts: mpsc::UnboundedSender<EndedAttempt>,
    pub(crate) in_flight: InFlight,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) prefetch: PrefetchLimit,
    pub(crate) attempt_time: AttemptTime,
    pub(crate) health: WorkerHealth,
    pub(crate) config: Arc<WorkerConfig>,
}

impl Executor {
    /// Starts an attempt, which waits for a free slot.
    pub(crate) fn start(&self, task: ClaimedTask, leased: &Arc<LeasedTask>) {
        leased.set_abort(self.runtime.spawn(self.attempt(task, leased.clone())).abort_handle());
    }

    fn attempt(&self, task: ClaimedTask, leased: Arc<LeasedTask>) -> impl Future<Output = ()> + use<> {
        let span = tracing::info_span!(
            "process_task",
            task_id = %task.id,
            attempt = task.attempt,
            request_id = task.request_id,
            trace_id = Empty
        );
        let trace_id =
            task.traceparent.as_ref().and_then(|traceparent| (self.config.continue_trace)(&span, traceparent));
        let (slots, processor, ended_attempts) =
            (self.slots.clone(), self.processor.clone(), self.ended_attempts.clone());
        let (in_flight, metrics, prefetch, attempt_time, config) = (
            self.in_flight.clone(),
            self.metrics.clone(),
            self.prefetch.clone(),
            self.attempt_time.clone(),
            self.config.clone(),
        );
        let health = self.health.clone();
        async move {
            let Ok(_slot) = slots.acquire().await else { return };
            if !leased.begin() {
                return;
            }
            // Dropped however the attempt ends: a stuck processor that returns is not stuck any more.
            let _stuck_guard = health.stuck_guard(task.id, task.fencing_token);
            let running = attempt_time.begin();
            let started = Instant::now();
            let results = attempt::run(&task, &*processor, config.timeout).await;
            let outcome = attempt::outcome(&task, results, &FailurePolicy::now(&config.retry));
            drop(running);
            let duration = started.elapsed();
            metrics.processing_seconds.observe(duration.as_secs_f64(), trace_id.as_deref());
            prefetch.record(duration);
            if let Some(ended) = in_flight.end(&leased, outcome) {
                let _ = ended_attempts.send(ended);
            }
        }
        .instrument(span)
    }
}
