//! The worker: claims tasks, runs the processing step, settles.
//!
//! ```text
//! Redis ──deliveries──► intake ──claimed──► attempts (own threads) ──settlements──► settle ──► PostgreSQL, then XACK
//!                         ▲                                                           │
//! PostgreSQL (fallback) ──┘          heartbeat: extends leases, finds stuck steps     └──► room for more
//! ```
//!
//! * A task is claimed before it runs and settled after; both go in micro-batches. How many tasks are held depends on how
//!   fast they run: as many as the threads finish within [`HORIZON`], so that fast tasks share round trips and a slow
//!   one does not make others wait.
//! * The step runs on a runtime of its own, so that whatever it does, leases are extended and results settled.
//! * Draining: no new claims, what runs may end; what does not is released without using up its attempt. It ends
//!   [`HAND_BACK`] after its time-out, also if PostgreSQL does not.

mod attempt;
mod busy;
mod health;
mod heartbeat;
mod held;
mod intake;
mod metrics;
mod processor;
mod settling;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pulse_core::{Claimed, RetryPolicy};
use pulse_queue::{Acknowledger, Queue};
use pulse_store::{Settlement, Store, Verdict};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span};

pub use health::WorkerHealth;
pub use metrics::{TaskCounters, WorkerMetrics};
pub use processor::{Normalize, ProcessError, Processor};

use crate::busy::Busy;
use crate::held::{Held, HeldTask, Progress};

/// Tasks are held for this long ahead.
pub const HORIZON: Duration = Duration::from_millis(100);
/// How long handing back what did not end may take, beyond the drain time-out.
const HAND_BACK: Duration = Duration::from_secs(5);
/// The most tasks held at once, and the most of one claim or settlement.
const MOST_HELD: usize = 256;
/// No more tasks are taken while so many events are held, to bound the memory that large batches take.
const MOST_HELD_EVENTS: usize = 2 * MOST_CLAIMED_EVENTS;
/// A claim takes no further task from this many events on, so that neither side sends or keeps too much at once.
const MOST_CLAIMED_EVENTS: usize = 2000;

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

    /// Works until `shutdown`, then drains. Returns when everything it held is settled or released, or when PostgreSQL is
    /// away for longer than the drain may take.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { config, store, queue, processor, metrics, health } = self;
        let steps = match tokio::runtime::Builder::new_multi_thread()
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
        let held = Held::default();
        let (settlements, receiver) = mpsc::unbounded_channel();
        let pace = Pace::new(config.concurrency);
        let busy = Busy::new(config.concurrency);
        let attempts = Attempts {
            runtime: steps.handle().clone(),
            slots: Arc::new(Semaphore::new(config.concurrency)),
            processor,
            settlements: settlements.clone(),
            held: held.clone(),
            metrics: metrics.clone(),
            pace: pace.clone(),
            busy: busy.clone(),
            health: health.clone(),
            config: Arc::new(config.clone()),
        };
        let settling = settling::Settling::new(&config, &store, &queue, held.clone(), metrics.clone(), busy.clone());
        let stop_settling = CancellationToken::new();
        let mut settling = tokio::spawn(settling.run(receiver, stop_settling.clone()));
        let heartbeat = heartbeat::Heartbeat {
            claimer: pulse_store::Claimer::new(&store, config.name.clone(), config.lease),
            acknowledger: Acknowledger::new(&queue, config.name.clone()),
            held: held.clone(),
            settlements: settlements.clone(),
            health: health.clone(),
            config: config.clone(),
        };
        let heartbeat = tokio::spawn(heartbeat.run());
        let mut intake = intake::Intake::new(&attempts, &store, &queue);
        let begun = async {
            shutdown.cancelled().await;
            tokio::time::Instant::now()
        };
        let give_up = async {
            shutdown.cancelled().await;
            tokio::time::sleep(config.drain_timeout + HAND_BACK).await;
        };
        let taking = async {
            tokio::select! {
                () = intake.run(&attempts, &shutdown) => {}
                // PostgreSQL does not answer to a claim.
                () = give_up => {}
            }
        };
        let (begun, ()) = tokio::join!(begun, taking);
        let deadline = begun + config.drain_timeout;

        tracing::info!(held = held.len(), "draining");
        // First what has not started: another worker can begin it while we wait for the rest.
        release(&held, &settlements, |task| task.progress == Progress::Waiting);
        held.emptied(deadline).await;
        release(&held, &settlements, |_| true);
        heartbeat.abort();
        drop((attempts, settlements));
        steps.shutdown_background();
        // Told to stop, because a step that never yields keeps its sender for ever.
        stop_settling.cancel();
        if tokio::time::timeout_at(deadline + HAND_BACK, &mut settling).await.is_err() {
            settling.abort();
            tracing::warn!(held = held.len(), "PostgreSQL is away: what is held runs again when its leases end");
        }
    }
}

/// Hands back those of our tasks that have no verdict yet.
fn release(held: &Held, settlements: &mpsc::UnboundedSender<Settlement>, which: impl Fn(&HeldTask) -> bool) {
    for (task_id, task) in held.all() {
        if !which(&task) || !held.end(task_id, task.lease_no) {
            continue;
        }
        if let Some(abort) = &task.abort {
            abort.abort();
        }
        let _ = settlements.send(Settlement { task_id, lease_no: task.lease_no, verdict: Verdict::Release });
    }
}

/// Starts attempts on the threads of the steps.
struct Attempts {
    runtime: Handle,
    slots: Arc<Semaphore>,
    processor: Arc<dyn Processor>,
    settlements: mpsc::UnboundedSender<Settlement>,
    held: Held,
    metrics: WorkerMetrics,
    pace: Pace,
    busy: Busy,
    health: WorkerHealth,
    config: Arc<WorkerConfig>,
}

impl Attempts {
    fn start(&self, task: Claimed) {
        let (id, lease_no) = (task.id, task.lease_no);
        let abort = self.runtime.spawn(self.attempt(task)).abort_handle();
        self.held.set_abort(id, lease_no, abort);
    }

    fn attempt(&self, task: Claimed) -> impl Future<Output = ()> + use<> {
        let span = tracing::info_span!("process_task", task_id = %task.id, attempt = task.attempt, request_id = task.request_id, trace_id = Empty);
        if let Some(traceparent) = &task.traceparent {
            (self.config.link_trace)(&span, traceparent);
        }
        let (slots, processor, settlements) = (self.slots.clone(), self.processor.clone(), self.settlements.clone());
        let (held, metrics, pace, busy, config) =
            (self.held.clone(), self.metrics.clone(), self.pace.clone(), self.busy.clone(), self.config.clone());
        let health = self.health.clone();
        async move {
            let Ok(_slot) = slots.acquire().await else { return };
            if !held.begin(task.id, task.lease_no) {
                return;
            }
            // Dropped at the end, whatever the end is: a step that was given up as stuck is not stuck any more.
            let _watched = health.watch(task.id, task.lease_no);
            let running = busy.step();
            let started = Instant::now();
            let verdict = if task.events.len() < task.event_count {
                Verdict::Gone
            } else {
                match attempt::run(&task, &*processor, config.timeout).await {
                    Ok(effects) => Verdict::Processed(effects),
                    Err(error) => {
                        let (now, random) = (chrono::Utc::now(), rand::random());
                        attempt::failed(task.attempt, task.max_attempts, error, &config.retry, now, random)
                    }
                }
            };
            drop(running);
            let took = started.elapsed();
            metrics.processing_seconds.observe(took.as_secs_f64());
            pace.took(took);
            if held.end(task.id, task.lease_no) {
                let _ = settlements.send(Settlement { task_id: task.id, lease_no: task.lease_no, verdict });
            }
        }
        .instrument(span)
    }
}

/// How many tasks to hold: as many as the steps finish within [`HORIZON`].
#[derive(Clone)]
struct Pace {
    concurrency: usize,
    average_us: Arc<AtomicU64>,
}

impl Pace {
    /// Starts careful: nothing is known of the tasks, so none is held that could not run at once.
    fn new(concurrency: usize) -> Self {
        let horizon = u64::try_from(HORIZON.as_micros()).unwrap_or(u64::MAX);
        Self { concurrency, average_us: Arc::new(AtomicU64::new(horizon)) }
    }

    /// Follows the duration of attempts: up at once, because a slow task keeps others waiting, down slowly.
    fn took(&self, duration: Duration) {
        let took = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let average = self.average_us.load(Ordering::Relaxed);
        self.average_us.store(took.max((average / 16) * 15 + took / 16), Ordering::Relaxed);
    }

    fn limit(&self) -> usize {
        let horizon = u64::try_from(HORIZON.as_micros()).unwrap_or(u64::MAX);
        let each = usize::try_from(horizon / self.average_us.load(Ordering::Relaxed).max(1)).unwrap_or(usize::MAX);
        self.concurrency.saturating_mul(each).clamp(self.concurrency, MOST_HELD.max(self.concurrency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_tasks_are_held_by_the_hundred_and_slow_ones_by_the_slot() {
        let pace = Pace::new(16);
        assert_eq!(pace.limit(), 16);
        for _ in 0..300 {
            pace.took(Duration::from_micros(50));
        }
        assert_eq!(pace.limit(), MOST_HELD);
        pace.took(Duration::from_secs(10));
        assert_eq!(pace.limit(), 16);
        for _ in 0..300 {
            pace.took(Duration::from_micros(50));
        }
        assert_eq!(pace.limit(), MOST_HELD);
    }
}
