//! The metrics of each role.

use pulse_api::ApiMetrics;
use pulse_console::ConsoleMetrics;
use pulse_http::HttpMetrics;
use pulse_metrics::Registry;

/// A registry with `pulse_build_info` for this role.
pub(crate) fn registry(role: &'static str) -> Registry {
    let mut registry = Registry::default();
    registry
        .gauges("pulse_build_info", ["version", "role"], "Version and role of the process; always 1")
        .with([env!("CARGO_PKG_VERSION"), role])
        .set(1);
    registry
}

/// Registers the metrics of the API.
pub(crate) fn api(registry: &mut Registry) -> (HttpMetrics, ApiMetrics) {
    (HttpMetrics::register(registry), ApiMetrics::register(registry))
}

/// Registers the metrics of the console.
pub(crate) fn console(registry: &mut Registry) -> (HttpMetrics, ConsoleMetrics) {
    (HttpMetrics::register(registry), ConsoleMetrics::register(registry))
}
