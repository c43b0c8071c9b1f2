//! The worker: claims tasks, runs the processor on their events, and settles them.
//!
//! ```text
//! Redis ──deliveries──► fetcher ──tasks──► executor (processors) ──outcomes──► settle loop ──► PostgreSQL, then XACK
//!                         ▲                                                         │
//! PostgreSQL (fallback) ──┘    heartbeat: extends leases, finds stuck processors    └──► capacity for more
//! ```
//!
//! * A task is claimed before it runs and settled afterwards, both in batches. The prefetch limit follows the duration
//!   of attempts: a worker has as many tasks in flight as its threads finish within [`PREFETCH_HORIZON`]. So fast tasks
//!   share round trips, and a slow task does not make others wait.
//! * Processors run on a separate runtime, so that a blocking processor does not delay leases and settlements.
//! * A drain stops claiming and waits for running tasks. Tasks that do not end in time are released without using up an
//!   attempt. The drain ends at the latest [`RELEASE_TIMEOUT`] after its time-out, even if PostgreSQL does not respond.

mod attempt;
mod busy;
mod executor;
mod fetcher;
mod health;
mod heartbeat;
mod in_flight;
mod metrics;
mod prefetch;
mod processor;
mod settling;

use std::sync::Arc;
use std::time::Duration;

use pulse_core::RetryPolicy;
use pulse_queue::{Acknowledger, Queue};
use pulse_store::{Outcome, Settlement, Store};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Span;

pub use health::WorkerHealth;
pub use metrics::WorkerMetrics;
pub use processor::{Normalize, ProcessError, Processor};

use crate::busy::BusyTime;
use crate::executor::Executor;
use crate::in_flight::{InFlight, InFlightTask, Progress};
use crate::prefetch::PrefetchLimit;

/// Time within which the processor threads should finish all in-flight tasks.
pub const PREFETCH_HORIZON: Duration = Duration::from_millis(100);
/// Time to release unfinished tasks after the drain time-out.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of in-flight tasks, and of tasks in one claim or settlement.
const MAX_IN_FLIGHT_TASKS: usize = 256;
/// Number of events in flight from which no task is claimed, to bound the memory of large batches.
const MAX_IN_FLIGHT_EVENTS: usize = 2 * MAX_CLAIM_EVENTS;
/// Number of events from which a claim takes no further task, to bound the size of a response of PostgreSQL.
const MAX_CLAIM_EVENTS: usize = 2000;

/// Configuration of a worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Name of the worker in leases and in Redis: `<host>.<boot id>`. A name must never be reused.
    pub name: String,
    /// Number of tasks that are processed concurrently.
    pub concurrency: usize,
    /// Time-out of an attempt.
    pub timeout: Duration,
    /// Delays between attempts.
    pub retry: RetryPolicy,
    /// Duration of a lease without a heartbeat.
    pub lease: Duration,
    /// Time to wait for running tasks after the start of the shutdown.
    pub drain_timeout: Duration,
    /// Links a task's span to the trace of the request that posted it.
    pub link_trace: fn(&Span, &str),
}

/// A worker. [`Worker::run`] starts it.
pub struct Worker {
    config: WorkerConfig,
    store: Store,
    queue: Queue,
    processor: Arc<dyn Processor>,
    metrics: WorkerMetrics,
    health: WorkerHealth,
}

impl Worker {
    /// Creates a worker. Does not connect to anything yet.
    pub fn new(
        config: WorkerConfig,
        store: Store,
        queue: Queue,
        processor: Arc<dyn Processor>,
        metrics: WorkerMetrics,
    ) -> Self {
        Self { config, store, queue, processor, metrics, health: WorkerHealth::new() }
    }

    /// Returns the health of the worker, for the probes.
    pub fn health(&self) -> WorkerHealth {
        self.health.clone()
    }

    /// Processes tasks until `shutdown`, then drains. Returns when all in-flight tasks are settled or released, or when
    /// the drain times out because PostgreSQL is unavailable.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { config, store, queue, processor, metrics, health } = self;
        let processor_runtime = match tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.concurrency.clamp(2, 64))
            .thread_name("processor")
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "cannot start processor threads: raise the limit of threads");
                return;
            }
        };
        let in_flight = InFlight::default();
        let (settlements, receiver) = mpsc::unbounded_channel();
        let prefetch = PrefetchLimit::new(config.concurrency);
        let busy = BusyTime::new(config.concurrency);
        let executor = Executor {
            runtime: processor_runtime.handle().clone(),
            slots: Arc::new(Semaphore::new(config.concurrency)),
            processor,
            settlements: settlements.clone(),
            in_flight: in_flight.clone(),
            metrics: metrics.clone(),
            prefetch: prefetch.clone(),
            busy: busy.clone(),
            health: health.clone(),
            config: Arc::new(config.clone()),
        };
        let settle_loop =
            settling::SettleLoop::new(&config, &store, &queue, in_flight.clone(), metrics.clone(), busy.clone());
        let stop_settling = CancellationToken::new();
        let mut settling = tokio::spawn(settle_loop.run(receiver, stop_settling.clone()));
        let heartbeat = heartbeat::Heartbeat {
            claimer: pulse_store::Claimer::new(&store, config.name.clone(), config.lease),
            acknowledger: Acknowledger::new(&queue, config.name.clone()),
            in_flight: in_flight.clone(),
            settlements: settlements.clone(),
            health: health.clone(),
            config: config.clone(),
        };
        let heartbeat = tokio::spawn(heartbeat.run());
        let mut fetcher = fetcher::Fetcher::new(&executor, &store, &queue);
        let drain_start = async {
            shutdown.cancelled().await;
            tokio::time::Instant::now()
        };
        let fetch_timeout = async {
            shutdown.cancelled().await;
            tokio::time::sleep(config.drain_timeout + RELEASE_TIMEOUT).await;
        };
        let fetching = async {
            tokio::select! {
                () = fetcher.run(&executor, &shutdown) => {}
                // PostgreSQL does not respond to a claim.
                () = fetch_timeout => {}
            }
        };
        let (drain_start, ()) = tokio::join!(drain_start, fetching);
        let deadline = drain_start + config.drain_timeout;

        tracing::info!(in_flight = in_flight.len(), "draining");
        // Waiting tasks first: another worker can start them while this one waits for the running tasks.
        release(&in_flight, &settlements, |task| task.progress == Progress::Waiting);
        in_flight.emptied(deadline).await;
        release(&in_flight, &settlements, |_| true);
        heartbeat.abort();
        drop((executor, settlements));
        processor_runtime.shutdown_background();
        // An explicit stop, because a processor that never yields keeps its sender forever.
        stop_settling.cancel();
        if tokio::time::timeout_at(deadline + RELEASE_TIMEOUT, &mut settling).await.is_err() {
            settling.abort();
            tracing::warn!(
                in_flight = in_flight.len(),
                "PostgreSQL is unavailable: in-flight tasks run again when their leases expire"
            );
        }
    }
}

/// Releases the matching tasks that have no outcome yet, and aborts their attempts.
fn release(
    in_flight: &InFlight,
    settlements: &mpsc::UnboundedSender<Settlement>,
    matches: impl Fn(&InFlightTask) -> bool,
) {
    for (task_id, task) in in_flight.all() {
        if !matches(&task) || !in_flight.end(task_id, task.fencing_token) {
            continue;
        }
        if let Some(abort) = &task.abort {
            abort.abort();
        }
        let _ = settlements.send(Settlement { task_id, fencing_token: task.fencing_token, outcome: Outcome::Release });
    }
}
