//! Metrics of the worker; the catalogue is in OPERATIONS.md.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use pulse_core::{AttemptOutcome, FailureReason};

/// A counter with one label. Worker and scheduler share two of them, because the scheduler settles the last attempts of
/// workers that died.
pub type TaskCounters = Family<[(&'static str, &'static str); 1], Counter>;

/// Metrics of a worker. Cheap to clone.
#[derive(Clone)]
pub struct WorkerMetrics {
    settled: TaskCounters,
    retries: TaskCounters,
    pub(crate) processing_seconds: Histogram,
    pub(crate) event_age_seconds: Histogram,
    pub(crate) stale_settlements: Counter,
    pub(crate) in_flight: Gauge,
}

impl WorkerMetrics {
    /// Registers all metrics except `settled` (by outcome) and `retries` (by reason), which the caller registers.
    pub fn register(registry: &mut Registry, settled: TaskCounters, retries: TaskCounters) -> Self {
        let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0];
        let metrics = Self {
            settled,
            retries,
            processing_seconds: Histogram::new(seconds),
            event_age_seconds: Histogram::new(seconds),
            stale_settlements: Counter::default(),
            in_flight: Gauge::default(),
        };
        registry.register(
            "pulse_task_processing_seconds",
            "Time from the start of an attempt to its end, in seconds",
            metrics.processing_seconds.clone(),
        );
        registry.register(
            "pulse_event_age_at_settle_seconds",
            "Time from the acceptance of a task to its completion, in seconds",
            metrics.event_age_seconds.clone(),
        );
        registry.register(
            "pulse_stale_settlements",
            "Number of settlements rejected because the lease was lost",
            metrics.stale_settlements.clone(),
        );
        registry.register(
            "pulse_worker_in_flight_tasks",
            "Number of tasks claimed and not settled yet",
            metrics.in_flight.clone(),
        );
        // Create all label values at start, so that a rate includes the first failure.
        for outcome in AttemptOutcome::ALL {
            drop(metrics.settled.get_or_create(&[("outcome", outcome.as_str())]));
        }
        for reason in FailureReason::ALL {
            drop(metrics.retries.get_or_create(&[("reason", reason.as_str())]));
        }
        metrics
    }

    pub(crate) fn count_settled(&self, outcome: AttemptOutcome) {
        self.settled.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    pub(crate) fn count_retry(&self, reason: FailureReason) {
        self.retries.get_or_create(&[("reason", reason.as_str())]).inc();
    }
}
