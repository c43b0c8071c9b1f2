//! Time that passes in attempts, summed over all that run at once. The time of a running attempt counts as it passes, so
//! that the operator knows of a long one before it ends.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Accumulates the time of attempts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AttemptTime(Arc<Mutex<Sum>>);

struct Sum {
    running: u32,
    /// Since when this many run.
    since: Instant,
    /// Time since the last [`AttemptTime::take`], up to `since`.
    time: Duration,
}

/// A running attempt, until it is dropped.
pub(crate) struct RunningAttempt(AttemptTime);

impl AttemptTime {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Sum { running: 0, since: Instant::now(), time: Duration::ZERO })))
    }

    /// Counts an attempt until it is dropped.
    pub(crate) fn begin(&self) -> RunningAttempt {
        self.sum().advance(Instant::now()).running += 1;
        RunningAttempt(self.clone())
    }

    /// Returns the time since the previous call.
    pub(crate) fn take(&self) -> Duration {
        std::mem::take(&mut self.sum().advance(Instant::now()).time)
    }

    /// Adds time that was taken and could not be reported.
    pub(crate) fn give_back(&self, time: Duration) {
        self.sum().time += time;
    }

    fn sum(&self) -> MutexGuard<'_, Sum> {
        // No code panics while it holds the lock, so the sum is consistent.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for RunningAttempt {
    fn drop(&mut self) {
        self.0.sum().advance(Instant::now()).running -= 1;
    }
}

impl Sum {
    fn advance(&mut self, now: Instant) -> &mut Self {
        self.time += now.saturating_duration_since(self.since) * self.running;
        self.since = self.since.max(now);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn attempt_time_is_that_of_all_running_attempts() {
        let since = Instant::now();
        let mut sum = Sum { running: 3, since, time: Duration::ZERO };
        sum.advance(since + 4 * SECOND);
        sum.advance(since + 3 * SECOND); // taken before the other one, and late at the lock
        sum.running = 1;
        assert_eq!(sum.advance(since + 10 * SECOND).time, 18 * SECOND);
        sum.running = 0;
        assert_eq!(sum.advance(since + 20 * SECOND).time, 18 * SECOND);
    }

    #[test]
    fn attempt_time_counts_while_an_attempt_runs_and_is_taken_once() {
        let time = AttemptTime::new();
        let running = time.begin();
        std::thread::sleep(Duration::from_millis(2));
        let first = time.take();
        assert!(first >= Duration::from_millis(2));
        drop(running);
        time.take();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(time.take(), Duration::ZERO);
        time.give_back(first);
        assert_eq!(time.take(), first);
    }
}
