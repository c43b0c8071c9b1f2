//! Token buckets, as the generic cell rate algorithm: one number for each bucket, and no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NANOS_PER_SECOND: f64 = 1e9;

/// A rate and what may be taken at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    per_second: f64,
    /// Units in a full bucket.
    quota: f64,
}

impl Rate {
    /// `units` per second, of which each of `shares` processes gets its share. `None` for 0, which means no limit.
    pub(crate) fn per_second(units: u32, shares: u32) -> Option<Self> {
        let per_second = f64::from(units) / f64::from(shares.max(1));
        (units > 0).then_some(Self { per_second, quota: per_second.max(1.0) })
    }

    /// `units` per minute. `None` for 0, which means no limit.
    pub(crate) fn per_minute(units: u32) -> Option<Self> {
        (units > 0).then_some(Self { per_second: f64::from(units) / 60.0, quota: f64::from(units) })
    }

    /// Whole units in a full bucket.
    pub(crate) fn quota(self) -> u64 {
        self.quota as u64
    }

    /// Time in which an empty bucket becomes full, in whole seconds.
    pub(crate) fn per_seconds(self) -> u64 {
        (self.quota / self.per_second).ceil() as u64
    }

    fn nanos(self, units: f64) -> u64 {
        (units / self.per_second * NANOS_PER_SECOND) as u64
    }
}

/// What a bucket holds at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    /// Whole units that can be taken.
    pub(crate) remaining: u64,
    /// Time until there is one more, in whole seconds, at least 1.
    pub(crate) next_seconds: u64,
}

/// A bucket that is full at first. The time of each call is since some common start.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// Time at which the bucket is full again, in nanoseconds.
    full_at: AtomicU64,
}

impl Bucket {
    /// Takes `units` if the bucket has as many. What is larger than a full bucket is taken from a full one and leaves a
    /// debt, so that the rate holds and a large batch is not refused forever.
    ///
    /// # Errors
    /// The time until they can be taken.
    pub(crate) fn take(&self, units: f64, rate: Rate, now: Duration) -> Result<(), Duration> {
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            wait(full_at, units, rate, now)?;
            let taken = full_at.max(nanos(now)).saturating_add(rate.nanos(units));
            match self.full_at.compare_exchange_weak(full_at, taken, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => full_at = changed,
            }
        }
    }

    /// Checks whether [`take`](Self::take) would succeed now.
    ///
    /// # Errors
    /// As `take`.
    pub(crate) fn check(&self, units: f64, rate: Rate, now: Duration) -> Result<(), Duration> {
        wait(self.full_at.load(Ordering::Relaxed), units, rate, now)
    }

    pub(crate) fn level(&self, rate: Rate, now: Duration) -> Level {
        let full_at = self.full_at.load(Ordering::Relaxed);
        let missing = Duration::from_nanos(full_at.saturating_sub(nanos(now))).as_secs_f64() * rate.per_second;
        let remaining = (rate.quota - missing).max(0.0).floor();
        let next = wait(full_at, (remaining + 1.0).min(rate.quota), rate, now).err().unwrap_or_default();
        Level { remaining: remaining as u64, next_seconds: whole_seconds(next) }
    }
}

/// `Retry-After` and the like: rounded up, at least 1.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs_f64().ceil() as u64).max(1)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn wait(full_at: u64, units: f64, rate: Rate, now: Duration) -> Result<(), Duration> {
    let possible_at = full_at.saturating_sub(rate.nanos(rate.quota - units.min(rate.quota)));
    match possible_at.saturating_sub(nanos(now)) {
        0 => Ok(()),
        nanos => Err(Duration::from_nanos(nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(units: u32) -> Rate {
        Rate::per_second(units, 1).expect("a limit")
    }

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn bucket_gives_its_quota_at_once_and_then_its_rate() {
        let (bucket, rate) = (Bucket::default(), rate(10));
        assert_eq!((0..20).filter(|_| bucket.take(1.0, rate, at(5.0)).is_ok()).count(), 10);
        assert_eq!(bucket.take(1.0, rate, at(5.0)), Err(at(0.1)));
        assert_eq!(bucket.take(3.0, rate, at(5.1)), Err(at(0.2)));
        assert_eq!(bucket.take(3.0, rate, at(5.3)), Ok(()));
        assert_eq!(bucket.check(1.0, rate, at(5.35)), Err(at(0.05)));
        // A bucket never holds more than its quota.
        assert_eq!((0..20).filter(|_| bucket.take(1.0, rate, at(100.0)).is_ok()).count(), 10);
    }

    #[test]
    fn batch_larger_than_the_bucket_leaves_a_debt() {
        let (bucket, rate) = (Bucket::default(), rate(10));
        assert_eq!(bucket.take(100.0, rate, at(1.0)), Ok(()));
        assert_eq!(bucket.level(rate, at(1.0)), Level { remaining: 0, next_seconds: 10 });
        assert_eq!(bucket.take(1.0, rate, at(1.0)), Err(at(9.1)));
        assert_eq!(bucket.take(100.0, rate, at(10.9)), Err(at(0.1)));
        assert_eq!(bucket.take(100.0, rate, at(11.0)), Ok(()));
    }

    #[test]
    fn level_has_the_whole_units_that_remain() {
        let (bucket, rate) = (Bucket::default(), rate(1000));
        assert_eq!(bucket.level(rate, at(0.0)), Level { remaining: 1000, next_seconds: 1 });
        bucket.take(400.0, rate, at(0.0)).expect("is full");
        assert_eq!(bucket.level(rate, at(0.0)), Level { remaining: 600, next_seconds: 1 });
        assert_eq!(bucket.level(rate, at(0.3)), Level { remaining: 900, next_seconds: 1 });
    }

    #[test]
    fn rate_below_one_per_second_gives_one_at_a_time() {
        let rate = Rate::per_second(1, 4).expect("a limit");
        assert_eq!((rate.quota(), rate.per_seconds()), (1, 4));
        let bucket = Bucket::default();
        assert_eq!(bucket.take(1.0, rate, at(0.0)), Ok(()));
        assert_eq!(bucket.take(1.0, rate, at(1.0)), Err(at(3.0)));
        assert_eq!(bucket.take(1.0, rate, at(4.0)), Ok(()));
    }

    #[test]
    fn shares_and_windows_follow_the_units() {
        let policy = |rate: Option<Rate>| rate.map(|rate| (rate.quota(), rate.per_seconds()));
        assert_eq!(policy(Rate::per_second(1000, 1)), Some((1000, 1)));
        assert_eq!(policy(Rate::per_second(1000, 3)), Some((333, 1)));
        assert_eq!(policy(Rate::per_minute(600)), Some((600, 60)));
        assert_eq!(Rate::per_second(0, 3), None);
        assert_eq!(Rate::per_minute(0), None);
    }

    #[test]
    fn largest_cost_does_not_overflow() {
        let (bucket, rate) = (Bucket::default(), Rate::per_second(1, 1000).expect("a limit"));
        assert_eq!(bucket.take(f64::from(u32::MAX), rate, at(1e6)), Ok(()));
        assert!(bucket.take(1.0, rate, at(1e6)).is_err());
    }
}
