//! The metrics of the worker.

use pulse_core::{AttemptOutcome, FailureReason};
use pulse_metrics::{Counter, Gauge, Histogram, Registry, TaskMetrics, TracedHistogram};

const BUCKETS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];

/// Metrics of a worker. Cheap to clone.
#[derive(Clone)]
pub struct WorkerMetrics {
    tasks: TaskMetrics,
    pub(crate) processing_seconds: TracedHistogram,
    pub(crate) event_age_seconds: Histogram,
    pub(crate) stale_settlements: Counter,
    pub(crate) in_flight: Gauge,
}

impl WorkerMetrics {
    /// Registers all metrics except `tasks`, which the caller has registered.
    pub fn register(registry: &mut Registry, tasks: TaskMetrics) -> Self {
        Self {
            tasks,
            processing_seconds: registry.traced_histogram(
                "pulse_task_processing_seconds",
                "Time from the start of an attempt to its end, in seconds",
                BUCKETS,
            ),
            event_age_seconds: registry.histogram(
                "pulse_event_age_at_settle_seconds",
                "Time from the acceptance of a task to its completion, in seconds",
                BUCKETS,
            ),
            stale_settlements: registry
                .counter("pulse_stale_settlements", "Number of settlements rejected because the lease was lost"),
            in_flight: registry.gauge("pulse_worker_in_flight_tasks", "Number of tasks claimed and not settled yet"),
        }
    }

    pub(crate) fn count_settled(&self, outcome: AttemptOutcome) {
        self.tasks.count_settled(outcome, 1);
    }

    pub(crate) fn count_retry(&self, reason: FailureReason) {
        self.tasks.count_retries(reason, 1);
    }
}
