//! Metrics of the API; the catalogue is in OPERATIONS.md.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use pulse_http::ProblemCode;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

/// Metrics of the API. Cheap to clone.
#[derive(Clone)]
pub struct ApiMetrics {
    pub(crate) accepted: Counter,
    /// Counts tasks that [`pulse_queue::Publisher`] could not enqueue.
    pub dropped: Counter,
    rejected: Family<CodeLabel, Counter>,
    pub(crate) accept_seconds: Histogram,
}

impl ApiMetrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let operations = Family::<OperationLabel, Histogram>::new_with_constructor(|| {
            Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
        });
        let metrics = Self {
            accepted: Counter::default(),
            dropped: Counter::default(),
            rejected: Family::default(),
            accept_seconds: operations.get_or_create(&OperationLabel { operation: "accept" }).clone(),
        };
        registry.register("pulse_events_accepted", "Number of events committed", metrics.accepted.clone());
        registry.register(
            "pulse_enqueues_dropped",
            "Number of tasks that could not be enqueued in Redis; the scheduler enqueues them later",
            metrics.dropped.clone(),
        );
        registry.register(
            "pulse_events_rejected",
            "Number of events rejected, by problem code; a request that is rejected as a whole counts as one",
            metrics.rejected.clone(),
        );
        registry.register(
            "pulse_store_operation_seconds",
            "Time of a store operation, including the wait in its queue, in seconds",
            operations,
        );
        // Create the label values at start, so that a rate includes the first rejection.
        metrics.reject(ProblemCode::ValidationError, 0);
        metrics.reject(ProblemCode::Unavailable, 0);
        metrics
    }

    pub(crate) fn reject(&self, code: ProblemCode, events: u64) {
        let code = code.as_str();
        self.rejected.get_or_create(&CodeLabel { code }).inc_by(events);
    }
}
