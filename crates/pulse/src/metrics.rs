//! The metrics of each role.

use pulse_api::ApiMetrics;
use pulse_console::ConsoleMetrics;
use pulse_http::HttpMetrics;
use pulse_metrics::Registry;
use pulse_store::PoolUse;

use crate::memory_limit::memory_limit;

/// A registry with `pulse_build_info` for this role.
pub(crate) fn registry(role: &'static str) -> Registry {
    let mut registry = Registry::default();
    registry
        .gauges("pulse_build_info", ["version", "role"], "Version and role of the process; always 1")
        .with([env!("CARGO_PKG_VERSION"), role])
        .set(1);
    registry.process();
    registry.computed_gauge(
        "pulse_memory_limit_bytes",
        "Memory limit of the container, in bytes; absent without a limit",
        || memory_limit().map(|bytes| bytes as f64),
    );
    registry
}

/// Registers the metrics of the pooled connections to PostgreSQL.
pub(crate) fn postgresql(registry: &mut Registry, pool_use: impl Fn() -> PoolUse + Clone + Send + Sync + 'static) {
    let limit = pool_use.clone();
    registry.computed_gauges(
        "pulse_postgresql_connections",
        "state",
        "Number of pooled connections to PostgreSQL, by state: busy or idle",
        move || {
            let PoolUse { busy, idle, .. } = pool_use();
            vec![("busy".into(), busy.into()), ("idle".into(), idle.into())]
        },
    );
    registry.computed_gauge(
        "pulse_postgresql_max_connections",
        "Maximum number of pooled connections to PostgreSQL",
        move || Some(limit().max.into()),
    );
}

/// Registers the metrics of the API.
pub(crate) fn api(registry: &mut Registry) -> (HttpMetrics, ApiMetrics) {
    (HttpMetrics::register(registry), ApiMetrics::register(registry))
}

/// Registers the metrics of the console.
pub(crate) fn console(registry: &mut Registry) -> (HttpMetrics, ConsoleMetrics) {
    (HttpMetrics::register(registry), ConsoleMetrics::register(registry))
}
