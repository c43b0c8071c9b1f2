//! The configuration of a worker, and its limits.

use std::time::Duration;

use pulse_core::RetryPolicy;
use tracing::Span;

/// Time within which the processor threads should finish all in-flight tasks.
pub const PREFETCH_HORIZON: Duration = Duration::from_millis(100);
/// Maximum number of in-flight tasks, and of tasks in one claim or settlement.
pub(crate) const MAX_IN_FLIGHT_TASKS: usize = 256;
/// Size of the events from which a claim takes no further task, in bytes, to bound a response of PostgreSQL.
pub(crate) const MAX_CLAIM_BYTES: usize = 8 * 1024 * 1024;

/// Configuration of a worker.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Name of the worker in leases and in Redis: `<host>.<boot id>`. A name must never be reused.
    pub name: String,
    /// Number of tasks that are processed concurrently.
    pub concurrency: usize,
    /// Size of the events in flight from which no task is claimed, in bytes. An event is in memory several times: as it was
    /// read, as payload and result, and in the statement that settles it.
    pub max_in_flight_bytes: usize,
    /// Time-out of an attempt.
    pub timeout: Duration,
    /// Delays between attempts.
    pub retry: RetryPolicy,
    /// Duration of a lease without a heartbeat.
    pub lease: Duration,
    /// Time to wait for running tasks after the start of the shutdown.
    pub drain_timeout: Duration,
    /// Makes the request that posted a task, by its `traceparent`, the parent of the task's span. Returns the id of the
    /// trace if the span is exported.
    pub continue_trace: fn(&Span, &str) -> Option<String>,
}
