//! The reporter: writes what this worker does into the registry, and what it did into the throughput by event name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pulse_store::{Store, StoreError, WorkerReport, WorkerState};

use crate::attempt_time::AttemptTime;
use crate::by_name::ByName;
use crate::config::WorkerConfig;
use crate::executor::Executor;
use crate::health::WorkerHealth;
use crate::in_flight::InFlight;

/// Time limit for the last report.
const LAST_REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Cheap to clone. The heartbeat calls [`Reporter::report`].
#[derive(Clone)]
pub(crate) struct Reporter {
    store: Store,
    config: Arc<WorkerConfig>,
    in_flight: InFlight,
    health: WorkerHealth,
    attempt_time: AttemptTime,
    by_name: ByName,
    draining: Arc<AtomicBool>,
    /// There is news, or the last report failed: do not wait for the next heartbeat.
    due: Arc<AtomicBool>,
}

impl Reporter {
    pub(crate) fn new(executor: &Executor, store: &Store, by_name: ByName) -> Self {
        Self {
            store: store.clone(),
            config: executor.config.clone(),
            in_flight: executor.in_flight.clone(),
            health: executor.health.clone(),
            attempt_time: executor.attempt_time.clone(),
            by_name,
            draining: Arc::default(),
            due: Arc::new(true.into()),
        }
    }

    /// Reports now.
    pub(crate) async fn report(&self) {
        self.due.store(false, Ordering::Relaxed);
        let draining = self.draining.load(Ordering::Relaxed);
        self.report_as(if draining { WorkerState::Draining } else { WorkerState::Running }).await;
    }

    /// Whether to report before the next heartbeat.
    pub(crate) fn is_due(&self) -> bool {
        self.due.load(Ordering::Relaxed)
    }

    /// Records that the drain has started.
    pub(crate) fn start_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.due.store(true, Ordering::Relaxed);
    }

    /// Reports that the worker has ended.
    pub(crate) async fn report_stop(&self) {
        let _ = tokio::time::timeout(LAST_REPORT_TIMEOUT, self.report_as(WorkerState::Stopped)).await;
    }

    async fn report_as(&self, state: WorkerState) {
        if let Err(error) = self.write(state).await {
            self.due.store(true, Ordering::Relaxed);
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot report to the registry of workers");
        }
    }

    async fn write(&self, state: WorkerState) -> Result<(), StoreError> {
        let tasks = self.in_flight.all();
        let longest = tasks.iter().max_by_key(|task| task.held());
        let report = WorkerReport {
            state,
            version: env!("CARGO_PKG_VERSION"),
            concurrency: self.config.concurrency,
            running: tasks.iter().filter(|task| task.is_running()).count(),
            in_flight: tasks.len(),
            last_claim_seconds: self.health.last_claim().map(|ago| ago.as_secs_f64()),
            longest: longest.map(|task| (task.id, task.held().as_secs_f64())),
            attempt_time: self.attempt_time.take(),
        };
        if let Err(error) = self.store.report_worker(&self.config.name, &report).await {
            self.attempt_time.give_back(report.attempt_time);
            return Err(error);
        }
        self.store.add_name_figures(&self.config.name, &self.by_name.take()).await
    }
}
