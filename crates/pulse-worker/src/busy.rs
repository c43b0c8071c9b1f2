//! Busy time of the worker: its utilisation, integrated over time. One second is one second of a fully busy worker.
//!
//! The operator takes `settled tasks / busy time` as the throughput of one worker. The utilisation at a moment is
//!
//! * 1 during a claim or a settlement: only one of each runs at a time, and they limit the throughput of fast tasks;
//! * else the number of running processors divided by the slots, which limit the throughput of slow tasks.
//!
//! So a worker at its limit counts all of its time, whichever resource is the limit. A worker below its limit counts a
//! part: the exact part if processors are slow, too much if they are fast and claims are small, because a claim of one
//! task takes nearly as long as a claim of a hundred. Too much busy time makes the operator keep workers that already
//! run; it never adds workers, because the busy time never exceeds the running time.
//!
//! Two simpler measures do not work: the time of processors is almost zero for fast ones, and the time with any task in
//! flight counts a worker with one slow task in sixteen slots as full.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Accumulates the busy time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BusyTime(Arc<Mutex<Usage>>);

struct Usage {
    slots: usize,
    processors: usize,
    statements: usize,
    /// Start of the current utilisation.
    since: Instant,
    /// Busy time since the last [`BusyTime::take`], up to `since`.
    sum: Duration,
}

/// A running processor or statement, until it is dropped.
pub(crate) struct BusyGuard {
    busy: BusyTime,
    counter: fn(&mut Usage) -> &mut usize,
}

impl BusyTime {
    pub(crate) fn new(slots: usize) -> Self {
        let usage =
            Usage { slots: slots.max(1), processors: 0, statements: 0, since: Instant::now(), sum: Duration::ZERO };
        Self(Arc::new(Mutex::new(usage)))
    }

    /// Counts a running processor until the guard is dropped.
    pub(crate) fn processor(&self) -> BusyGuard {
        self.begin(|usage| &mut usage.processors)
    }

    /// Counts a claim or a settlement until the guard is dropped.
    pub(crate) fn statement(&self) -> BusyGuard {
        self.begin(|usage| &mut usage.statements)
    }

    /// Returns the busy time since the previous call.
    pub(crate) fn take(&self) -> Duration {
        let mut usage = self.usage();
        usage.advance(Instant::now());
        std::mem::take(&mut usage.sum)
    }

    fn begin(&self, counter: fn(&mut Usage) -> &mut usize) -> BusyGuard {
        let mut usage = self.usage();
        usage.advance(Instant::now());
        *counter(&mut usage) += 1;
        drop(usage);
        BusyGuard { busy: self.clone(), counter }
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        // No code panics while it holds the lock, so the usage is consistent.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        let mut usage = self.busy.usage();
        usage.advance(Instant::now());
        *(self.counter)(&mut usage) -= 1;
    }
}

impl Usage {
    fn advance(&mut self, now: Instant) {
        let utilisation = if self.statements > 0 { 1.0 } else { (self.processors as f64 / self.slots as f64).min(1.0) };
        self.sum += now.saturating_duration_since(self.since).mul_f64(utilisation);
        self.since = self.since.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the busy time of ten seconds with four slots.
    fn busy_time_of_ten_seconds(processors: usize, statements: usize) -> Duration {
        let since = Instant::now();
        let mut usage = Usage { slots: 4, processors, statements, since, sum: Duration::ZERO };
        usage.advance(since + 4 * SECOND);
        usage.advance(since + 3 * SECOND); // taken before the other one, and late at the lock
        usage.advance(since + 10 * SECOND);
        usage.sum
    }

    #[test]
    fn busy_time_is_complete_only_at_a_limit() {
        assert_eq!(busy_time_of_ten_seconds(0, 0), Duration::ZERO);
        assert_eq!(busy_time_of_ten_seconds(1, 0), SECOND.mul_f64(2.5));
        assert_eq!(busy_time_of_ten_seconds(4, 0), 10 * SECOND);
        assert_eq!(busy_time_of_ten_seconds(0, 1), 10 * SECOND);
        assert_eq!(busy_time_of_ten_seconds(4, 2), 10 * SECOND);
    }

    #[test]
    fn busy_time_adds_up_microseconds() {
        let since = Instant::now();
        let mut usage = Usage { slots: 1, processors: 1, statements: 0, since, sum: Duration::ZERO };
        for n in 1..=3000 {
            usage.advance(since + Duration::from_micros(n));
        }
        assert_eq!(usage.sum, Duration::from_millis(3));
    }

    #[test]
    fn busy_time_stops_after_guards_and_resets_on_take() {
        let busy = BusyTime::new(1);
        drop((busy.processor(), busy.statement()));
        busy.take();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(busy.take(), Duration::ZERO);
    }
}
