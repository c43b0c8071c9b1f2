//! How much of the worker is in use, summed over time: the unit is the time of one fully busy worker.
//!
//! The operator takes `settled / busy time` for what one more worker can do. At each moment the share in use is
//!
//! * 1 while a claim or a settlement is under way: each has one statement, and fast tasks are bound by them;
//! * else the running processors divided by the slots: slow tasks are bound by them.
//!
//! So a worker that cannot do more counts its whole time, whatever it is short of. One that could do more counts a part
//! of it: exactly, where processors are slow; too much, where they are fast and claims are small, because a claim of one task
//! takes nearly as long as one of a hundred. That errs towards workers that are there already, never beyond them.
//! It is neither the time of processors (fast ones would take none) nor the time in which anything was in_flight (a worker with
//! one slow task in sixteen slots would count as full).

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Adds it up. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Busy(Arc<Mutex<State>>);

struct State {
    slots: usize,
    processors: usize,
    statements: usize,
    /// The share in use is the same since then.
    since: Instant,
    /// Not taken yet.
    sum: Duration,
}

/// What is in use until this is dropped.
pub(crate) struct InUse {
    busy: Busy,
    what: fn(&mut State) -> &mut usize,
}

impl Busy {
    pub(crate) fn new(slots: usize) -> Self {
        let state =
            State { slots: slots.max(1), processors: 0, statements: 0, since: Instant::now(), sum: Duration::ZERO };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A step runs.
    pub(crate) fn step(&self) -> InUse {
        self.begin(|state| &mut state.processors)
    }

    /// A claim or a settlement is under way.
    pub(crate) fn statement(&self) -> InUse {
        self.begin(|state| &mut state.statements)
    }

    /// The busy time that nobody took yet.
    pub(crate) fn take(&self) -> Duration {
        let mut state = self.state();
        state.advance(Instant::now());
        std::mem::take(&mut state.sum)
    }

    fn begin(&self, what: fn(&mut State) -> &mut usize) -> InUse {
        let mut state = self.state();
        state.advance(Instant::now());
        *what(&mut state) += 1;
        drop(state);
        InUse { busy: self.clone(), what }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and each change is whole.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.busy.state();
        state.advance(Instant::now());
        *(self.what)(&mut state) -= 1;
    }
}

impl State {
    fn advance(&mut self, now: Instant) {
        let share = if self.statements > 0 { 1.0 } else { (self.processors as f64 / self.slots as f64).min(1.0) };
        self.sum += now.saturating_duration_since(self.since).mul_f64(share);
        self.since = self.since.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The busy time of ten seconds with so much in use, of four slots.
    fn of_ten_seconds(processors: usize, statements: usize) -> Duration {
        let since = Instant::now();
        let mut state = State { slots: 4, processors, statements, since, sum: Duration::ZERO };
        state.advance(since + 4 * SECOND);
        state.advance(since + 3 * SECOND); // read before the other one, and late at the lock
        state.advance(since + 10 * SECOND);
        state.sum
    }

    #[test]
    fn only_a_worker_that_can_do_no_more_counts_all_of_its_time() {
        assert_eq!(of_ten_seconds(0, 0), Duration::ZERO);
        assert_eq!(of_ten_seconds(1, 0), SECOND.mul_f64(2.5));
        assert_eq!(of_ten_seconds(4, 0), 10 * SECOND);
        assert_eq!(of_ten_seconds(0, 1), 10 * SECOND);
        assert_eq!(of_ten_seconds(4, 2), 10 * SECOND);
    }

    #[test]
    fn microseconds_add_up() {
        let since = Instant::now();
        let mut state = State { slots: 1, processors: 1, statements: 0, since, sum: Duration::ZERO };
        for n in 1..=3000 {
            state.advance(since + Duration::from_micros(n));
        }
        assert_eq!(state.sum, Duration::from_millis(3));
    }

    #[test]
    fn what_ended_is_not_in_use_and_what_was_taken_is_gone() {
        let busy = Busy::new(1);
        drop((busy.step(), busy.statement()));
        busy.take();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(busy.take(), Duration::ZERO);
    }
}
