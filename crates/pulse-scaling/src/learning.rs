//! What is measured over time: the mean time of an attempt, the tasks that become due per second, and the time that a
//! worker takes to start. It survives a restart of the operator through the status.

use std::collections::VecDeque;

/// Weight of the past: about this many attempts, or this time if more of them end in it.
const ATTEMPTS: f64 = 20.0;
const ATTEMPTS_SECONDS: f64 = 120.0;
/// While no slot is idle, attempts that take this many times as long as the mean over this time replace what was learned:
/// there are other tasks now, or another processor. Few slow attempts weigh little against thousands of fast ones.
const SLOWER: f64 = 4.0;
const SLOWER_SECONDS: f64 = 10.0;
/// The rate of arrivals is that of about this many of them, within these parts of the drain time: what comes faster
/// may wait.
const ARRIVALS: f64 = 200.0;
const ARRIVALS_PART: std::ops::RangeInclusive<f64> = 0.25..=1.0;
/// The rate of arrivals follows the median of this many intervals. A burst within one of them is no rate: its tasks
/// wait, and are counted there.
const MEDIAN_OF: usize = 3;
/// Most attempts of a task that are expected from the part of attempts that fails.
const MAX_ATTEMPTS: f64 = 4.0;
/// Most time of a slot that claiming and settling can take for an attempt, in seconds. What takes longer is a fault, which
/// more workers do not mend.
const MAX_OVERHEAD: f64 = 0.5;
/// Weight of the newest interval in the overhead.
const OVERHEAD_WEIGHT: f64 = 0.25;
/// Time in which the overhead is forgotten while slots are idle, in seconds.
const OVERHEAD_SECONDS: f64 = 600.0;
/// Minimum time between two points for a rate, in milliseconds.
const MIN_INTERVAL_MS: i64 = 1_000;

/// What is known of the tasks and workers of one object. Small, and written to the status.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Learned {
    /// Mean time of an attempt, in seconds.
    pub attempt_seconds: Option<f64>,
    /// Mean time of a slot that claiming and settling take for each attempt, in seconds. It limits short attempts.
    pub overhead_seconds: Option<f64>,
    /// Tasks that become due per second: new ones and retries.
    pub arrivals_per_second: Option<f64>,
    /// Time from the creation of a worker until it is ready, in seconds.
    pub start_seconds: Option<f64>,
}

/// The totals at a given time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// Time by PostgreSQL's clock, in milliseconds since 1970.
    pub(crate) at_ms: i64,
    pub(crate) accepted: i64,
    pub(crate) attempts: i64,
    pub(crate) retried: i64,
    pub(crate) attempt_ms: i64,
    pub(crate) in_flight: u64,
    /// Due tasks that no worker has.
    pub(crate) waiting: u64,
    /// Number of slots of all ready workers.
    pub(crate) slots: u32,
}

/// Changes since the previous point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Change {
    pub(crate) accepted: bool,
    /// An attempt ran or ended.
    pub(crate) worked: bool,
    /// A total decreased: this is another database.
    pub(crate) reset: bool,
}

/// The measurements of one object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Learning {
    last: Option<Point>,
    /// Weighted sums of the time of attempts, in seconds, and of their number.
    attempt_seconds: f64,
    attempts: f64,
    /// Mean time of an attempt, weighted by time and not by attempts, since no slot was idle; in seconds.
    pace: Option<f64>,
    overhead: Option<f64>,
    /// Rates of accepted tasks in the last intervals, and the rate that follows from them.
    recent: VecDeque<f64>,
    accepted: Option<f64>,
    /// Rate of retries in the last interval: each attempt that ends in a retry brings another one soon.
    retried: f64,
    start_seconds: Option<f64>,
}

impl Learning {
    /// Continues with what was learned before a restart.
    pub(crate) fn restored(learned: Learned) -> Self {
        let is_valid = |value: &f64| value.is_finite() && *value >= 0.0;
        Self {
            attempt_seconds: learned.attempt_seconds.filter(is_valid).unwrap_or(0.0) * ATTEMPTS,
            attempts: if learned.attempt_seconds.is_some_and(|it| is_valid(&it)) { ATTEMPTS } else { 0.0 },
            overhead: learned.overhead_seconds.filter(is_valid),
            accepted: learned.arrivals_per_second.filter(is_valid),
            start_seconds: learned.start_seconds.filter(is_valid),
            ..Self::default()
        }
    }

    /// What is known by now.
    pub(crate) fn learned(&self) -> Learned {
        Learned {
            attempt_seconds: self.mean_attempt(),
            overhead_seconds: self.overhead,
            arrivals_per_second: self.accepted.map(|accepted| accepted + self.retried),
            start_seconds: self.start_seconds,
        }
    }

    /// Before a whole attempt was seen, the time for which those in flight have run: a lower bound.
    fn mean_attempt(&self) -> Option<f64> {
        (self.attempts > 0.0).then(|| self.attempt_seconds / self.attempts)
    }

    /// Adds the time that workers took to start.
    pub(crate) fn observe_start(&mut self, seconds: Option<f64>) {
        self.start_seconds = seconds.or(self.start_seconds);
    }

    /// Adds the next point. Waiting tasks are to be started within `drain_seconds`.
    pub(crate) fn observe(&mut self, point: Point, drain_seconds: f64) -> Change {
        let Some(last) = self.last else {
            self.last = Some(point);
            return Change::default();
        };
        let (accepted, ended) = (point.accepted - last.accepted, point.attempts - last.attempts);
        let (retried, run_ms) = (point.retried - last.retried, point.attempt_ms - last.attempt_ms);
        if accepted < 0 || ended < 0 || retried < 0 || run_ms < 0 {
            *self = Self { last: Some(point), ..Self::restored(self.learned()) };
            return Change { reset: true, ..Change::default() };
        }
        let change = Change { accepted: accepted > 0, worked: ended > 0 || run_ms > 0, reset: false };
        let elapsed_ms = point.at_ms - last.at_ms;
        if elapsed_ms < 0 {
            // The clock was set, or another server took over.
            self.last = Some(point);
        }
        if elapsed_ms < MIN_INTERVAL_MS {
            return change;
        }
        self.last = Some(point);
        let seconds = elapsed_ms as f64 / 1000.0;
        self.learn_arrivals(accepted as f64 / seconds, seconds, drain_seconds);
        self.retried = self.expected_retries(ended, retried, run_ms, seconds);
        // Failures say nothing about the time of an attempt that succeeds: they end at once, or only by a timeout.
        if retried * 2 <= ended {
            self.learn_attempts(last, point, seconds);
        }
        change
    }

    /// Rate of retries to expect, in tasks per second that take as long as usual.
    ///
    /// An attempt that fails at once takes no slot for long. As long as a part of the attempts fails, the same part of
    /// the retries will, so that there will soon be more of them than in the last interval.
    fn expected_retries(&self, ended: i64, retried: i64, run_ms: i64, seconds: f64) -> f64 {
        if retried == 0 {
            return 0.0;
        }
        let ended = ended.max(retried) as f64;
        let mean = run_ms as f64 / 1000.0 / ended;
        let time = self.mean_attempt().map_or(1.0, |usual| (mean / usual).min(1.0));
        let attempts = 1.0 / (1.0 - retried as f64 / ended).max(1.0 / MAX_ATTEMPTS);
        time * (retried as f64 / seconds).max(self.accepted.unwrap_or(0.0) * (attempts - 1.0))
    }

    /// The mean is the time that passed in attempts, divided by the mean of the numbers that started and that ended. With
    /// only those that ended, it would be too high while the number in flight grows.
    fn learn_attempts(&mut self, last: Point, point: Point, seconds: f64) {
        let ended = (point.attempts - last.attempts) as f64;
        let run = (point.attempt_ms - last.attempt_ms) as f64 / 1000.0;
        let started = (ended + point.in_flight as f64 - last.in_flight as f64).max(0.0);
        let count = (started + ended) / 2.0;
        let part = kept((count / ATTEMPTS).min(seconds / ATTEMPTS_SECONDS));
        self.attempt_seconds = self.attempt_seconds * part + run;
        self.attempts = self.attempts * part + count;
        // Fewer tasks were started than were waiting, so some were waiting all the time, and no slot was idle.
        let is_saturated = started < last.waiting as f64 && point.waiting > 0 && point.slots == last.slots;
        self.learn_slower(run / count.max(point.in_flight as f64 / 2.0), seconds, is_saturated);
        if count == 0.0 {
            return;
        }
        if is_saturated {
            let observed = ((f64::from(point.slots) * seconds - run) / count).clamp(0.0, MAX_OVERHEAD);
            let before = self.overhead.unwrap_or(observed);
            self.overhead = Some(before + (observed - before) * OVERHEAD_WEIGHT);
        } else {
            // Workers that were lost look like overhead. Whether it is, only shows again when no slot is idle.
            self.overhead = self.overhead.map(|before| before * kept(seconds / OVERHEAD_SECONDS));
        }
    }

    /// Starts anew if the attempts of the last seconds take much longer than those before.
    fn learn_slower(&mut self, mean: f64, seconds: f64, is_saturated: bool) {
        if !is_saturated || !mean.is_finite() {
            self.pace = None;
            return;
        }
        let before = self.pace.or(self.mean_attempt()).unwrap_or(mean);
        let kept = kept(seconds / SLOWER_SECONDS);
        let pace = before * kept + mean * (1.0 - kept);
        self.pace = Some(pace);
        if self.mean_attempt().is_some_and(|usual| pace > usual * SLOWER) {
            (self.attempt_seconds, self.attempts) = (pace * ATTEMPTS, ATTEMPTS);
        }
    }

    fn learn_arrivals(&mut self, rate: f64, seconds: f64, drain_seconds: f64) {
        if self.recent.len() == MEDIAN_OF {
            self.recent.pop_front();
        }
        self.recent.push_back(rate);
        let mut sorted: Vec<f64> = self.recent.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        // Of two, the lower one: the other may be a burst.
        let typical = sorted[(sorted.len() - 1) / 2];
        let before = self.accepted.unwrap_or(typical);
        let window = (ARRIVALS / typical.max(before))
            .clamp(ARRIVALS_PART.start() * drain_seconds, ARRIVALS_PART.end() * drain_seconds);
        let kept = kept(seconds / window);
        self.accepted = Some(before * kept + typical * (1.0 - kept));
    }
}

/// The weight that the past keeps after `age`, in units of its time constant. Close to the exponential function, which
/// differs in its last digit between platforms.
fn kept(age: f64) -> f64 {
    1.0 / (1.0 + age + age * age / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: f64 = 60.0;

    fn point(seconds: i64) -> Point {
        Point {
            at_ms: seconds * 1000,
            accepted: 0,
            attempts: 0,
            retried: 0,
            attempt_ms: 0,
            in_flight: 0,
            waiting: 0,
            slots: 16,
        }
    }

    /// What is learned from points of each tenth second.
    fn learned(seconds: i64, point: impl Fn(i64) -> Point) -> Learned {
        let mut learning = Learning::default();
        for second in (0..=seconds).step_by(10) {
            learning.observe(point(second), DRAIN);
        }
        learning.learned()
    }

    fn is_near(value: Option<f64>, expected: f64, percent: f64) {
        let value = value.expect("known");
        assert!((value / expected - 1.0).abs() <= percent / 100.0, "{value}, expected {expected}");
    }

    #[test]
    fn attempt_time_is_known_while_slots_fill_and_when_they_are_full() {
        // 2 tasks of 30 s arrive per second, from zero.
        let filling = |second: i64| Point {
            attempts: (2 * (second - 30)).max(0),
            attempt_ms: if second < 30 { second * second * 1000 } else { (900 + 60 * (second - 30)) * 1000 },
            in_flight: (2 * second.min(30)).cast_unsigned(),
            ..point(second)
        };
        for (seconds, percent) in [(30, 5.0), (60, 5.0), (600, 1.0)] {
            is_near(learned(seconds, filling).attempt_seconds, 30.0, percent);
        }
        // 16 slots that are full from the start.
        let full = |second: i64| Point {
            attempts: second / 30 * 16,
            attempt_ms: second * 16_000,
            in_flight: if second == 0 { 0 } else { 16 },
            ..point(second)
        };
        is_near(learned(600, full).attempt_seconds, 30.0, 10.0);
    }

    #[test]
    fn attempt_time_counts_a_long_attempt_before_it_ends() {
        // 100 tasks of 0.2 s per second, and one that has run for 120 s.
        let mixed =
            |second: i64| Point { attempts: second * 100, attempt_ms: second * 21_000, in_flight: 21, ..point(second) };
        is_near(learned(120, mixed).attempt_seconds, 0.21, 1.0);
    }

    #[test]
    fn attempt_time_follows_slower_tasks_within_seconds_also_after_thousands_of_fast_ones() {
        let mut learning = Learning::default();
        // 8,000 tasks of 1 ms, then 4 slots run tasks of 1 s while others wait.
        for second in (0..=30).step_by(2) {
            let fast =
                Point { attempts: second * 400, attempt_ms: second * 400, in_flight: 1, slots: 4, ..point(second) };
            learning.observe(fast, DRAIN);
        }
        is_near(learning.learned().attempt_seconds, 0.001, 1.0);
        for second in (32..=50).step_by(2) {
            let (ran, attempts) = (second - 30, 12_000 + (second - 30) * 4);
            let waiting = 400 - u64::try_from(ran * 4).expect("positive");
            let slow =
                Point { attempts, attempt_ms: 12_000 + ran * 4000, in_flight: 4, waiting, slots: 4, ..point(second) };
            learning.observe(slow, DRAIN);
        }
        is_near(learning.learned().attempt_seconds, 1.0, 25.0);
        // Tasks of 5 minutes, none of which has ended.
        for second in (52..=70).step_by(2) {
            let attempt_ms = 12_000 + (second - 30) * 4000;
            let endless = Point { attempts: 12_080, attempt_ms, in_flight: 4, waiting: 300, slots: 4, ..point(second) };
            learning.observe(endless, DRAIN);
        }
        assert!(learning.learned().attempt_seconds > Some(1.5), "{learning:?}");
    }

    #[test]
    fn overhead_is_learned_while_tasks_wait_all_the_time() {
        // 16 slots start 400 tasks of 1 ms per second: each takes 40 ms of a slot.
        let fast = |second: i64, waiting| Point {
            accepted: second * 400,
            attempts: second * 400,
            attempt_ms: second * 400,
            waiting,
            ..point(second)
        };
        let saturated = learned(100, |second| fast(second, 90_000));
        is_near(saturated.overhead_seconds, 0.039, 1.0);
        is_near(saturated.attempt_seconds, 0.001, 1.0);
        assert_eq!(learned(100, |second| fast(second, 100)).overhead_seconds, None, "tasks wait by chance");
        let stuck =
            learned(100, |second| Point { attempts: second / 10, waiting: 9, attempt_ms: second, ..point(second) });
        assert_eq!(stuck.overhead_seconds, Some(MAX_OVERHEAD), "a fault is bounded");
        let paused = learned(100, |second| Point { waiting: 900, ..point(second) });
        assert_eq!(paused.overhead_seconds, None);
    }

    #[test]
    fn attempt_time_is_not_distorted_by_failures() {
        let mut learning = Learning::restored(Learned { attempt_seconds: Some(5.0), ..Learned::default() });
        for second in (0..600).step_by(10) {
            let failing =
                Point { attempts: second * 40, retried: second * 40, attempt_ms: second * 400, ..point(second) };
            learning.observe(failing, DRAIN);
        }
        is_near(learning.learned().attempt_seconds, 5.0, 0.0);
        // 40 failures per second of 10 ms each are less than one task of 5 s.
        assert!(learning.learned().arrivals_per_second.expect("known") < 1.0, "{learning:?}");
    }

    #[test]
    fn arrivals_follow_what_is_accepted_and_retried() {
        let steady = |second: i64| Point {
            accepted: second * 30,
            attempts: second * 40,
            retried: second * 10,
            attempt_ms: second * 8000,
            ..point(second)
        };
        is_near(learned(300, steady).arrivals_per_second, 40.0, 1.0);
    }

    #[test]
    fn arrivals_are_not_distorted_by_a_burst_within_one_interval() {
        let burst = |second: i64| Point { accepted: second + if second >= 100 { 60_000 } else { 0 }, ..point(second) };
        for seconds in (100..200).step_by(10) {
            is_near(learned(seconds, burst).arrivals_per_second, 1.0, 1.0);
        }
        let step = |second: i64| Point { accepted: second + (second - 90).max(0) * 600, ..point(second) };
        assert!(learned(130, step).arrivals_per_second.expect("known") > 300.0, "a rate is learned within 30 s");
    }

    #[test]
    fn decreasing_total_is_another_database() {
        let mut learning = Learning::default();
        learning.observe(Point { accepted: 5, ..point(0) }, DRAIN);
        assert!(learning.observe(point(10), DRAIN).reset);
        assert!(!learning.observe(point(20), DRAIN).reset);
    }
}
