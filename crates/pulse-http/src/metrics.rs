//! The metrics of every HTTP port.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

const BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Bounded cardinality: the matched route instead of the path, and known methods only.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: u16,
}

/// Metrics of HTTP requests. Cheap to clone.
#[derive(Clone)]
pub struct HttpMetrics {
    durations: Family<RequestLabels, Histogram, fn() -> Histogram>,
    pub(crate) active: Gauge,
}

impl HttpMetrics {
    /// Registers all metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            durations: Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram),
            active: Gauge::default(),
        };
        registry.register(
            "http_server_request_duration_seconds",
            "Time from the request head to the response, in seconds",
            metrics.durations.clone(),
        );
        registry.register("http_server_active_requests", "Number of requests in progress", metrics.active.clone());
        metrics
    }

    pub(crate) fn record(&self, route: &str, method: &Method, status: StatusCode, duration: Duration) {
        let labels = RequestLabels { route: route.to_owned(), method: known_method(method), status: status.as_u16() };
        self.durations.get_or_create(&labels).observe(duration.as_secs_f64());
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
