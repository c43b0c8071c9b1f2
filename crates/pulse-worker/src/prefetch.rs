//! The prefetch limit: how many tasks a worker claims ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::config::{MAX_IN_FLIGHT_TASKS, PREFETCH_HORIZON};

/// Maximum number of in-flight tasks: as many as the slots finish within [`PREFETCH_HORIZON`]. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PrefetchLimit {
    concurrency: usize,
    average_us: Arc<AtomicU64>,
}

impl PrefetchLimit {
    /// Starts with one task per slot, because the duration of an attempt is not known yet.
    pub(crate) fn new(concurrency: usize) -> Self {
        let horizon = u64::try_from(PREFETCH_HORIZON.as_micros()).unwrap_or(u64::MAX);
        Self { concurrency, average_us: Arc::new(AtomicU64::new(horizon)) }
    }

    /// Updates the average duration of an attempt. It rises at once, because a slow task makes prefetched tasks wait,
    /// and falls slowly.
    pub(crate) fn record(&self, duration: Duration) {
        let duration = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let average = self.average_us.load(Ordering::Relaxed);
        self.average_us.store(duration.max((average / 16) * 15 + duration / 16), Ordering::Relaxed);
    }

    /// Returns the current limit, at least the concurrency.
    pub(crate) fn limit(&self) -> usize {
        let horizon = u64::try_from(PREFETCH_HORIZON.as_micros()).unwrap_or(u64::MAX);
        let per_slot = usize::try_from(horizon / self.average_us.load(Ordering::Relaxed).max(1)).unwrap_or(usize::MAX);
        self.concurrency.saturating_mul(per_slot).clamp(self.concurrency, MAX_IN_FLIGHT_TASKS.max(self.concurrency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefetch_limit_rises_for_fast_tasks_and_falls_to_concurrency_for_slow_ones() {
        let prefetch = PrefetchLimit::new(16);
        assert_eq!(prefetch.limit(), 16);
        for _ in 0..300 {
            prefetch.record(Duration::from_micros(50));
        }
        assert_eq!(prefetch.limit(), MAX_IN_FLIGHT_TASKS);
        prefetch.record(Duration::from_secs(10));
        assert_eq!(prefetch.limit(), 16);
        for _ in 0..300 {
            prefetch.record(Duration::from_micros(50));
        }
        assert_eq!(prefetch.limit(), MAX_IN_FLIGHT_TASKS);
    }
}
