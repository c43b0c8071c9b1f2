//! The metrics of every HTTP port.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use pulse_metrics::{Counter, Family, Gauge, LabelValue, Registry, TracedHistogram};

const BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Metrics of HTTP requests. Cheap to clone.
#[derive(Clone)]
pub struct HttpMetrics {
    durations: Family<TracedHistogram, 3>,
    problems: Family<Counter, 1>,
    pub(crate) active: Gauge,
}

impl HttpMetrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            durations: registry.traced_histograms(
                "http_server_request_duration_seconds",
                ["route", "method", "status"],
                "Time from the request head to the response, in seconds",
                &BUCKETS,
            ),
            problems: registry.counters(
                "http_server_problems",
                ["code"],
                "Number of requests answered with a problem, by its code",
            ),
            active: registry.gauge("http_server_active_requests", "Number of requests in progress"),
        }
    }

    pub(crate) fn count_problem(&self, code: &'static str) {
        self.problems.with([code]).inc();
    }

    /// The number of series is bounded: `route` is the matched route instead of the path, and unknown methods are one.
    pub(crate) fn record(
        &self,
        route: &str,
        method: &Method,
        status: StatusCode,
        duration: Duration,
        trace_id: Option<&str>,
    ) {
        let labels =
            [LabelValue::from(route.to_owned()), known_method(method).into(), status.as_str().to_owned().into()];
        self.durations.with(labels).observe(duration.as_secs_f64(), trace_id);
    }
}

fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
