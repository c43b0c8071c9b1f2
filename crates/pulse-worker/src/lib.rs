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
mod attempt_time;
mod by_name;
mod config;
mod executor;
mod fetcher;
mod health;
mod heartbeat;
mod in_flight;
mod leased_task;
mod locked_attempts;
mod metrics;
mod prefetch;
mod processor;
mod reporter;
mod settled;
mod settling;

use std::sync::Arc;
use std::time::Duration;

use pulse_queue::{Acknowledger, Queue};
use pulse_store::{Outcome, Store};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use config::{PREFETCH_HORIZON, WorkerConfig};
pub use health::WorkerHealth;
pub use metrics::WorkerMetrics;
pub use processor::{Normalize, ProcessError, Processor};

use crate::attempt_time::AttemptTime;
use crate::by_name::ByName;
use crate::executor::Executor;
use crate::fetcher::Fetcher;
use crate::heartbeat::Heartbeat;
use crate::in_flight::{EndedAttempt, InFlight};
use crate::leased_task::LeasedTask;
use crate::prefetch::PrefetchLimit;
use crate::reporter::Reporter;
use crate::settling::SettleLoop;

/// Time to release unfinished tasks after the drain time-out.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

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
        let runtime = match tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.config.concurrency.clamp(2, 64))
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
        let (ended_attempts, receiver) = mpsc::unbounded_channel();
        let executor = self.executor(runtime.handle().clone(), ended_attempts.clone());
        let stop_settling = CancellationToken::new();
        let by_name = ByName::default();
        let reporter = Reporter::new(&executor, &self.store, by_name.clone());
        let settling = tokio::spawn(self.settle_loop(&executor, by_name).run(receiver, stop_settling.clone()));
        let heartbeat = tokio::spawn(self.heartbeat(&executor, reporter.clone()).run());
        let drain_start = self.fetch(&executor, &shutdown).await;
        let deadline = drain_start + self.config.drain_timeout;

        let in_flight = executor.in_flight.clone();
        tracing::info!(in_flight = in_flight.len(), "draining");
        // Waiting tasks first: another worker can start them while this one waits for the running tasks.
        release(&in_flight, &ended_attempts, LeasedTask::is_waiting);
        reporter.start_drain();
        in_flight.emptied(deadline).await;
        release(&in_flight, &ended_attempts, |_| true);
        heartbeat.abort();
        drop((executor, ended_attempts));
        runtime.shutdown_background();
        // An explicit stop, because a processor that never yields keeps its sender forever.
        stop_settling.cancel();
        finish_settling(settling, &in_flight, deadline + RELEASE_TIMEOUT).await;
        reporter.report_stop().await;
    }

    fn executor(&self, runtime: Handle, ended_attempts: mpsc::UnboundedSender<EndedAttempt>) -> Executor {
        let concurrency = self.config.concurrency;
        Executor {
            runtime,
            slots: Arc::new(Semaphore::new(concurrency)),
            processor: self.processor.clone(),
            ended_attempts,
            in_flight: InFlight::default(),
            metrics: self.metrics.clone(),
            prefetch: PrefetchLimit::new(concurrency),
            attempt_time: AttemptTime::new(),
            health: self.health.clone(),
            config: Arc::new(self.config.clone()),
        }
    }

    fn settle_loop(&self, executor: &Executor, by_name: ByName) -> SettleLoop {
        let Executor { in_flight, metrics, attempt_time, .. } = executor;
        let (in_flight, metrics, attempt_time) = (in_flight.clone(), metrics.clone(), attempt_time.clone());
        SettleLoop::new(&self.config, &self.store, &self.queue, in_flight, metrics, by_name, attempt_time)
    }

    fn heartbeat(&self, executor: &Executor, reporter: Reporter) -> Heartbeat {
        Heartbeat {
            store: self.store.clone(),
            acknowledger: Acknowledger::new(&self.queue, self.config.name.clone()),
            in_flight: executor.in_flight.clone(),
            ended_attempts: executor.ended_attempts.clone(),
            health: self.health.clone(),
            reporter,
            config: self.config.clone(),
        }
    }

    /// Claims and starts tasks until `shutdown`, and returns when that was.
    async fn fetch(&self, executor: &Executor, shutdown: &CancellationToken) -> Instant {
        let mut fetcher = Fetcher::new(executor, &self.store, &self.queue);
        let drain_start = async {
            shutdown.cancelled().await;
            Instant::now()
        };
        let fetch_timeout = async {
            shutdown.cancelled().await;
            tokio::time::sleep(self.config.drain_timeout + RELEASE_TIMEOUT).await;
        };
        let fetching = async {
            tokio::select! {
                () = fetcher.run(executor, shutdown) => {}
                // PostgreSQL does not respond to a claim.
                () = fetch_timeout => {}
            }
        };
        tokio::join!(drain_start, fetching).0
    }
}

/// Releases the matching tasks that have no outcome yet, and aborts their attempts.
fn release(
    in_flight: &InFlight,
    ended_attempts: &mpsc::UnboundedSender<EndedAttempt>,
    matches: impl Fn(&LeasedTask) -> bool,
) {
    for task in in_flight.all() {
        if matches(&task)
            && let Some(ended) = in_flight.end(&task, Outcome::Release(Duration::ZERO))
        {
            task.abort();
            let _ = ended_attempts.send(ended);
        }
    }
}

/// Waits for the settle loop until `deadline`, then aborts it.
async fn finish_settling(mut settling: JoinHandle<()>, in_flight: &InFlight, deadline: Instant) {
    if tokio::time::timeout_at(deadline, &mut settling).await.is_err() {
        tracing::warn!(
            in_flight = in_flight.len(),
            "PostgreSQL is unavailable: in-flight tasks run again when their leases expire"
        );
        settling.abort();
    }
}
