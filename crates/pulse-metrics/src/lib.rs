//! Metrics, each declared in one place: a [`Registry`] creates, exports and lists them.
//!
//! ```
//! let mut registry = pulse_metrics::Registry::default();
//! let requeued = registry.counter("pulse_tasks_requeued", "Number of tasks that were enqueued again");
//! let settled = registry.counters("pulse_tasks_settled", ["outcome"], "Number of settled tasks");
//! requeued.inc();
//! settled.with(["dead"]).inc();
//! ```
//!
//! [`Registry::metrics`] is the source of docs/reference/metrics.md.

mod classic;
mod computed;
mod family;
mod process;
mod registry;
mod tasks;
#[cfg(test)]
mod tests;
mod traced;

pub use family::{Family, LabelValue};
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
pub use registry::{FloatGauge, Metric, Registry};
pub use tasks::TaskMetrics;
pub use traced::TracedHistogram;
