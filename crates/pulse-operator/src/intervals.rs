//! The intervals of the reconcile.

use std::time::Duration;

/// Intervals of the reconcile. Tests shorten them.
#[derive(Debug, Clone)]
pub struct Intervals {
    /// Time after which Secrets are read again.
    pub secrets: Duration,
    /// Time between two reads of a missing or unreadable Secret.
    pub missing: Duration,
    /// Time between two samples of the queue.
    pub poll: Duration,
    /// First and longest delay after a failed reconcile. The delay doubles with each failure in a row.
    pub backoff: (Duration, Duration),
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            secrets: Duration::from_secs(60),
            missing: Duration::from_secs(5),
            poll: Duration::from_secs(10),
            backoff: (Duration::from_secs(1), Duration::from_secs(300)),
        }
    }
}

impl Intervals {
    /// Delay before the next try, after `failures` earlier failures in a row.
    pub(crate) fn after(&self, failures: u32) -> Duration {
        let (first, max) = self.backoff;
        first.saturating_mul(1 << failures.min(16)).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_with_each_failure_up_to_the_maximum() {
        let intervals = Intervals::default();
        let waits = [0, 1, 2, 20, u32::MAX].map(|failures| intervals.after(failures).as_secs());
        assert_eq!(waits, [1, 2, 4, 300, 300]);
    }
}
