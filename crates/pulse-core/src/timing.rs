//! Times of different roles that depend on each other.

use std::time::Duration;

/// How long a lease on a task lasts without a heartbeat.
pub const TASK_LEASE: Duration = Duration::from_secs(30);
/// Idle time after which a delivery is stale, and the scheduler removes its entry from the stream.
pub const STALE_DELIVERY: Duration = Duration::from_secs(60);
/// Time for which a worker's read waits for deliveries.
pub const READ_BLOCK: Duration = Duration::from_secs(2);
/// Time without a read after which a consumer is dead, and the scheduler removes it.
pub const SILENT_CONSUMER: Duration = Duration::from_secs(300);

// Heartbeats reset the idle time of a delivery. Once it is stale, the lease of its task has expired too.
const _: () = assert!(STALE_DELIVERY.as_millis() >= 2 * TASK_LEASE.as_millis());
// A worker that is not busy reads again after each wait, so many reads are missed before a consumer counts as dead.
const _: () = assert!(SILENT_CONSUMER.as_millis() >= 10 * READ_BLOCK.as_millis());
