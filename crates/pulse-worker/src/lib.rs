//! The worker: claims tasks, runs the processing step, settles.
//!
//! ```text
//! Redis ──deliveries──► fetcher ──claimed──► attempts (own threads) ──settlements──► settle ──► PostgreSQL, then XACK
//!                         ▲                                                           │
//! PostgreSQL (fallback) ──┘          heartbeat: extends leases, finds stuck processors     └──► capacity for more
//! ```
//!
//! * A task is claimed before it runs and settled after; both go in micro-batches. How many tasks are in_flight depends on how
//!   fast they run: as many as the threads finish within [`PREFETCH_HORIZON`], so that fast tasks share round trips and a slow
//!   one does not make others wait.
//! * The step runs on a runtime of its own, so that whatever it does, leases are extended and results settled.
//! * Draining: no new claims, what runs may end; what does not is released without using up its attempt. It ends
//!   [`RELEASE_TIMEOUT`] after its time-out, also if PostgreSQL does not.

mod attempt;
mod busy;
mod fetcher;
mod health;
mod heartbeat;
mod in_flight;
mod metrics;
mod processor;
mod settling;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pulse_core::{ClaimedTask, RetryPolicy};
use pulse_queue::{Acknowledger, Queue};
use pulse_store::{Outcome, Settlement, Store};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span};

pub use health::WorkerHealth;
pub use metrics::{TaskCounters, WorkerMetrics};
pub use processor::{Normalize, ProcessError, Processor};

use crate::busy::Busy;
use crate::in_flight::{InFlight, InFlightTask, Progress};

/// Tasks are in_flight for this long ahead.
pub const PREFETCH_HORIZON: Duration = Duration::from_millis(100);
/// How long handing back what did not end may take, beyond the drain time-out.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most tasks in_flight at once, and the most of one claim or settlement.
const MAX_IN_FLIGHT_TASKS: usize = 256;
/// No more tasks are taken while so many events are in_flight, to bound the memory that large batches take.
const MAX_IN_FLIGHT_EVENTS: usize = 2 * MAX_CLAIM_EVENTS;
/// A claim takes no further task from this many events on, so that neither side sends or keeps too much at once.
const MAX_CLAIM_EVENTS: usize = 2000;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Names the worker in leases and in Redis: `<host>.<boot id>`, never used again.
    pub name: String,
    /// Steps that run at once.
    pub concurrency: usize,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// When a failed attempt runs again.
    pub retry: RetryPolicy,
    /// How long a claim lasts without a heartbeat.
    pub lease: Duration,
    /// How long running tasks may go on after the shutdown began.
    pub drain_timeout: Duration,
    /// Links a task's span to the trace of the request that posted it.
    pub link_trace: fn(&Span, &str),
}

/// A worker, ready to run.
pub struct Worker {
    config: WorkerConfig,
    store: Store,
    queue: Queue,
    processor: Arc<dyn Processor>,
    metrics: WorkerMetrics,
    health: WorkerHealth,
}

impl Worker {
    /// Puts a worker together.
    pub fn new(
        config: WorkerConfig,
        store: Store,
        queue: Queue,
        processor: Arc<dyn Processor>,
        metrics: WorkerMetrics,
    ) -> Self {
        Self { config, store, queue, processor, metrics, health: WorkerHealth::new() }
    }

    /// For the probes.
    pub fn health(&self) -> WorkerHealth {
        self.health.clone()
    }

    /// Works until `shutdown`, then drains. Returns when everything it in_flight is settled or released, or when PostgreSQL is
    /// away for longer than the drain may take.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { config, store, queue, processor, metrics, health } = self;
        let processors = match tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.concurrency.clamp(2, 64))
            .thread_name("step")
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "cannot start threads for processing: raise the limit of threads");
                return;
            }
        };
        let in_flight = InFlight::default();
        let (settlements, receiver) = mpsc::unbounded_channel();
        let prefetch = PrefetchLimit::new(config.concurrency);
        let busy = Busy::new(config.concurrency);
        let executor = Executor {
            runtime: processors.handle().clone(),
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
        let settling =
            settling::Settling::new(&config, &store, &queue, in_flight.clone(), metrics.clone(), busy.clone());
        let stop_settling = CancellationToken::new();
        let mut settling = tokio::spawn(settling.run(receiver, stop_settling.clone()));
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
        let begun = async {
            shutdown.cancelled().await;
            tokio::time::Instant::now()
        };
        let give_up = async {
            shutdown.cancelled().await;
            tokio::time::sleep(config.drain_timeout + RELEASE_TIMEOUT).await;
        };
        let taking = async {
            tokio::select! {
                () = fetcher.run(&executor, &shutdown) => {}
                // PostgreSQL does not answer to a claim.
                () = give_up => {}
            }
        };
        let (begun, ()) = tokio::join!(begun, taking);
        let deadline = begun + config.drain_timeout;

        tracing::info!(in_flight = in_flight.len(), "draining");
        // First what has not started: another worker can begin it while we wait for the rest.
        release(&in_flight, &settlements, |task| task.progress == Progress::Waiting);
        in_flight.emptied(deadline).await;
        release(&in_flight, &settlements, |_| true);
        heartbeat.abort();
        drop((executor, settlements));
        processors.shutdown_background();
        // Told to stop, because a step that never yields keeps its sender for ever.
        stop_settling.cancel();
        if tokio::time::timeout_at(deadline + RELEASE_TIMEOUT, &mut settling).await.is_err() {
            settling.abort();
            tracing::warn!(
                in_flight = in_flight.len(),
                "PostgreSQL is away: what is in_flight runs again when its leases end"
            );
        }
    }
}

/// Hands back those of our tasks that have no outcome yet.
fn release(
    in_flight: &InFlight,
    settlements: &mpsc::UnboundedSender<Settlement>,
    which: impl Fn(&InFlightTask) -> bool,
) {
    for (task_id, task) in in_flight.all() {
        if !which(&task) || !in_flight.end(task_id, task.fencing_token) {
            continue;
        }
        if let Some(abort) = &task.abort {
            abort.abort();
        }
        let _ = settlements.send(Settlement { task_id, fencing_token: task.fencing_token, outcome: Outcome::Release });
    }
}

/// Starts attempts on the threads of the processors.
struct Executor {
    runtime: Handle,
    slots: Arc<Semaphore>,
    processor: Arc<dyn Processor>,
    settlements: mpsc::UnboundedSender<Settlement>,
    in_flight: InFlight,
    metrics: WorkerMetrics,
    prefetch: PrefetchLimit,
    busy: Busy,
    health: WorkerHealth,
    config: Arc<WorkerConfig>,
}

impl Executor {
    fn start(&self, task: ClaimedTask) {
        let (id, fencing_token) = (task.id, task.fencing_token);
        let abort = self.runtime.spawn(self.attempt(task)).abort_handle();
        self.in_flight.set_abort(id, fencing_token, abort);
    }

    fn attempt(&self, task: ClaimedTask) -> impl Future<Output = ()> + use<> {
        let span = tracing::info_span!("process_task", task_id = %task.id, attempt = task.attempt, request_id = task.request_id, trace_id = Empty);
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
            // Dropped at the end, whatever the end is: a step that was given up as stuck is not stuck any more.
            let _watched = health.watch(task.id, task.fencing_token);
            let running = busy.step();
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
            let took = started.elapsed();
            metrics.processing_seconds.observe(took.as_secs_f64());
            prefetch.took(took);
            if in_flight.end(task.id, task.fencing_token) {
                let _ = settlements.send(Settlement { task_id: task.id, fencing_token: task.fencing_token, outcome });
            }
        }
        .instrument(span)
    }
}

/// How many tasks to hold: as many as the processors finish within [`PREFETCH_HORIZON`].
#[derive(Clone)]
struct PrefetchLimit {
    concurrency: usize,
    average_us: Arc<AtomicU64>,
}

impl PrefetchLimit {
    /// Starts careful: nothing is known of the tasks, so none is in_flight that could not run at once.
    fn new(concurrency: usize) -> Self {
        let horizon = u64::try_from(PREFETCH_HORIZON.as_micros()).unwrap_or(u64::MAX);
        Self { concurrency, average_us: Arc::new(AtomicU64::new(horizon)) }
    }

    /// Follows the duration of attempts: up at once, because a slow task keeps others waiting, down slowly.
    fn took(&self, duration: Duration) {
        let took = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let average = self.average_us.load(Ordering::Relaxed);
        self.average_us.store(took.max((average / 16) * 15 + took / 16), Ordering::Relaxed);
    }

    fn limit(&self) -> usize {
        let horizon = u64::try_from(PREFETCH_HORIZON.as_micros()).unwrap_or(u64::MAX);
        let each = usize::try_from(horizon / self.average_us.load(Ordering::Relaxed).max(1)).unwrap_or(usize::MAX);
        self.concurrency.saturating_mul(each).clamp(self.concurrency, MAX_IN_FLIGHT_TASKS.max(self.concurrency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_tasks_are_held_by_the_hundred_and_slow_ones_by_the_slot() {
        let prefetch = PrefetchLimit::new(16);
        assert_eq!(prefetch.limit(), 16);
        for _ in 0..300 {
            prefetch.took(Duration::from_micros(50));
        }
        assert_eq!(prefetch.limit(), MAX_IN_FLIGHT_TASKS);
        prefetch.took(Duration::from_secs(10));
        assert_eq!(prefetch.limit(), 16);
        for _ in 0..300 {
            prefetch.took(Duration::from_micros(50));
        }
        assert_eq!(prefetch.limit(), MAX_IN_FLIGHT_TASKS);
    }
}
