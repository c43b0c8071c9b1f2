//! The intervals of the reconcile.

use std::time::Duration;

/// Intervals of the reconcile. Tests shorten them.
#[derive(Debug, Clone)]
pub struct Intervals {
    /// Time after which Secrets are read again, unless that is more often than `secret_reads_per_second` allows.
    pub secrets: Duration,
    /// Maximum rate of reads of Secrets, for all objects together, while no reference is missing and all pods are ready.
    pub secret_reads_per_second: u32,
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
            secret_reads_per_second: 10,
            missing: Duration::from_secs(5),
            poll: Duration::from_secs(10),
            backoff: (Duration::from_secs(1), Duration::from_secs(300)),
        }
    }
}

impl Intervals {
    /// Time after which the Secrets of one of `instances` are read again, if each refers to as many as this one.
    pub fn secrets_of(&self, instances: usize, secrets: usize) -> Duration {
        let seconds = (instances * secrets) as f64 / f64::from(self.secret_reads_per_second.max(1));
        self.secrets.max(Duration::from_secs_f64(seconds))
    }

    /// Delay before the next try, after `failures` earlier failures in a row.
    pub fn after(&self, failures: u32) -> Duration {
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

    #[test]
    fn secrets_of_many_instances_are_read_less_often() {
        let intervals = Intervals::default();
        let seconds = [1, 200, 1000].map(|instances| intervals.secrets_of(instances, 3).as_secs());
        assert_eq!(seconds, [60, 60, 300], "at most 10 reads per second");
    }
}
