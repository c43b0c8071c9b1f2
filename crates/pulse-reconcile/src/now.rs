//! The time of a reconcile, which is an argument of everything that decides.

use std::time::Instant;

use jiff::Timestamp;

/// The time at which a reconcile began.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// By the wall clock, as in objects.
    pub clock: Timestamp,
    /// By the monotonic clock, for waits of this process.
    pub instant: Instant,
}
