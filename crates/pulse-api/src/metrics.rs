//! The metrics of the API.

use pulse_http::ProblemCode;
use pulse_metrics::{Counter, Family, Histogram, Registry};

const ACCEPT_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Metrics of the API. Cheap to clone.
#[derive(Clone)]
pub struct ApiMetrics {
    pub(crate) accepted: Counter,
    /// Counts tasks that [`pulse_queue::Publisher`] could not enqueue.
    pub dropped: Counter,
    rejected: Family<Counter, 1>,
    limited: Family<Counter, 1>,
    pub(crate) accept_seconds: Histogram,
}

impl ApiMetrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            accepted: registry.counter("pulse_events_accepted", "Number of events committed"),
            dropped: registry.counter(
                "pulse_enqueues_dropped",
                "Number of tasks that could not be enqueued in Redis; the scheduler enqueues them later",
            ),
            rejected: registry.counters(
                "pulse_events_rejected",
                ["code"],
                "Number of events rejected, by problem code; a request that is rejected as a whole counts as one",
            ),
            limited: registry.counters(
                "pulse_requests_limited",
                ["limit"],
                "Number of requests answered 429, by limit: requests, events, bytes, in_flight, lists, new_users",
            ),
            accept_seconds: registry.histogram(
                "pulse_accept_seconds",
                "Time of the commit of a request, including the wait for the commit before it, in seconds",
                ACCEPT_BUCKETS,
            ),
        };
        // Create the label values at start, so that a rate includes the first rejection.
        metrics.reject(ProblemCode::ValidationError, 0);
        metrics.reject(ProblemCode::Unavailable, 0);
        metrics
    }

    pub(crate) fn limited(&self, limit: &'static str) {
        self.limited.with([limit]).inc();
    }

    pub(crate) fn reject(&self, code: ProblemCode, events: u64) {
        self.rejected.with([code.as_str()]).inc_by(events);
    }
}
