//! Measures arrivals per second, and tasks per second of a worker, from totals that only grow.
//!
//! The throughput is the number of tasks settled per second and ready worker, in windows in which tasks were waiting
//! all the time. The busy time is no measure of it: it leaves out claiming and settling, which take most of the time of
//! short tasks. It only distinguishes saturated workers from workers that had a waiting task by chance at each sample.

/// Number of windows before the throughput counts as known.
const MIN_WINDOWS: u32 = 5;
/// A window ends after this many settled tasks, so that one long task does not distort it…
const WINDOW_TASKS: i64 = 20;
/// …or after this time, in milliseconds.
const WINDOW_MS: i64 = 60_000;
/// Minimum time between two points for a rate, in milliseconds.
const MIN_INTERVAL_MS: i64 = 1_000;
/// Time constant of the smoothed arrival rate, in seconds.
const ARRIVALS_SMOOTHING: f64 = 30.0;
/// Workers count as saturated from this fraction of their possible busy time on.
const SATURATED: f64 = 0.8;

/// The totals at a given time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// Time by PostgreSQL's clock, in milliseconds since the Unix epoch.
    pub(super) at_ms: i64,
    pub(super) accepted: i64,
    pub(super) settled: i64,
    pub(super) busy_ms: i64,
    /// Due tasks that no worker has yet.
    pub(super) waiting: i64,
    pub(super) in_flight: i64,
    /// Number of ready workers.
    pub(super) ready: u32,
}

/// Changes since the previous point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Change {
    pub(super) accepted: bool,
    pub(super) settled: bool,
    /// A total decreased: this is another database.
    pub(super) reset: bool,
}

/// The measured rates.
#[derive(Debug, Clone, Default)]
pub(super) struct Learning {
    last: Option<Point>,
    window: Option<Window>,
    arrivals: Arrivals,
    windows: u32,
    throughput: f64,
}

/// An exponentially weighted mean. Time before the first sample has no weight. Otherwise, a burst at the first sample
/// would stand for the whole past.
#[derive(Debug, Clone, Copy, Default)]
struct Arrivals {
    weighted: f64,
    weight: f64,
}

/// A time in which tasks were waiting at each sample.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: Point,
    /// Milliseconds, summed over all ready workers.
    worker_ms: f64,
}

impl Learning {
    /// With these rates as measured.
    #[cfg(test)]
    pub(super) fn known(arrivals: f64, throughput: f64) -> Self {
        let arrivals = Arrivals { weighted: arrivals, weight: 1.0 };
        Self { arrivals, windows: MIN_WINDOWS, throughput, ..Self::default() }
    }

    /// Accepted tasks per second, smoothed; `None` before the second point.
    pub(super) fn arrivals(&self) -> Option<f64> {
        let Arrivals { weighted, weight } = self.arrivals;
        (weight > 0.0).then(|| weighted / weight)
    }

    /// Tasks per second of a worker; `None` before [`MIN_WINDOWS`] windows.
    pub(super) fn throughput(&self) -> Option<f64> {
        (self.windows >= MIN_WINDOWS && self.throughput > 0.0).then_some(self.throughput)
    }

    /// Adds the next point; a worker processes up to `concurrency` tasks at once.
    pub(super) fn observe(&mut self, point: Point, concurrency: u16) -> Change {
        let Some(last) = self.last else {
            self.start(point);
            return Change::default();
        };
        let (accepted, settled) = (point.accepted - last.accepted, point.settled - last.settled);
        if accepted < 0 || settled < 0 || point.busy_ms < last.busy_ms {
            self.start(point);
            return Change { reset: true, ..Change::default() };
        }
        let change = Change { accepted: accepted > 0, settled: settled > 0, reset: false };
        let elapsed_ms = point.at_ms - last.at_ms;
        if elapsed_ms < 0 {
            // The clock was set, or another server took over.
            self.start(point);
        }
        if elapsed_ms < MIN_INTERVAL_MS {
            return change;
        }
        self.last = Some(point);
        self.learn_arrivals(accepted as f64 * 1000.0 / elapsed_ms as f64, elapsed_ms as f64 / 1000.0);
        let ready = f64::from(last.ready + point.ready) / 2.0;
        if let Some(window) = &mut self.window {
            window.worker_ms += ready * elapsed_ms as f64;
        }
        self.learn_throughput(point, concurrency);
        change
    }

    fn start(&mut self, point: Point) {
        self.last = Some(point);
        self.window = (point.waiting > 0).then_some(Window { start: point, worker_ms: 0.0 });
        self.arrivals = Arrivals::default();
    }

    fn learn_arrivals(&mut self, rate: f64, seconds: f64) {
        let kept = (-seconds / ARRIVALS_SMOOTHING).exp();
        let Arrivals { weighted, weight } = self.arrivals;
        self.arrivals =
            Arrivals { weighted: kept * weighted + (1.0 - kept) * rate, weight: kept * weight + (1.0 - kept) };
    }

    fn learn_throughput(&mut self, point: Point, concurrency: u16) {
        let restart = (point.waiting > 0).then_some(Window { start: point, worker_ms: 0.0 });
        let Some(Window { start, worker_ms }) = self.window.filter(|_| point.waiting > 0) else {
            self.window = restart;
            return;
        };
        let settled = point.settled - start.settled;
        if settled < WINDOW_TASKS && point.at_ms - start.at_ms < WINDOW_MS {
            return;
        }
        self.window = restart;
        // Fewer tasks were claimed than were waiting at the start, so some were waiting all the time.
        let never_empty = settled + (point.in_flight - start.in_flight).max(0) < start.waiting;
        let busy = (point.busy_ms - start.busy_ms) as f64 >= SATURATED * worker_ms * f64::from(concurrency);
        if worker_ms > 0.0 && (never_empty || busy) {
            self.windows = self.windows.saturating_add(1);
            let rate = settled as f64 * 1000.0 / worker_ms;
            self.throughput += (rate - self.throughput) / f64::from(self.windows.min(MIN_WINDOWS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One worker that settles `per_second` tasks, sampled at `seconds`; `waiting` is the number of waiting tasks.
    fn learned(seconds: impl Iterator<Item = i64>, waiting: impl Fn(i64) -> i64, per_second: i64) -> Learning {
        let mut learning = Learning::default();
        for second in seconds {
            let point = Point {
                at_ms: second * 1000,
                accepted: 10_000,
                settled: second * per_second,
                busy_ms: second * 10,
                waiting: waiting(second),
                in_flight: 16,
                ready: 1,
            };
            learning.observe(point, 16);
        }
        learning
    }

    #[test]
    fn throughput_is_known_after_five_windows_with_waiting_tasks() {
        let waiting = |second| 100_000 - second * 50;
        assert_eq!(learned((0..=4).map(|n| n * 10), waiting, 50).throughput(), None);
        assert_eq!(learned((0..=5).map(|n| n * 10), waiting, 50).throughput(), Some(50.0));
    }

    #[test]
    fn throughput_ignores_windows_without_saturation() {
        assert_eq!(learned((0..100).map(|n| n * 10), |_| 0, 50).throughput(), None);
        assert_eq!(
            learned((0..100).map(|n| n * 10), |_| 3, 50).throughput(),
            None,
            "a task is waiting by chance at each sample"
        );
    }

    #[test]
    fn throughput_is_stable_with_long_tasks() {
        let slow = |second: i64| second / 7;
        let mut learning = Learning::default();
        for second in (0..900).step_by(10) {
            let point = Point {
                at_ms: second * 1000,
                accepted: 0,
                settled: slow(second),
                busy_ms: second * 16_000,
                waiting: 500,
                in_flight: 16,
                ready: 1,
            };
            learning.observe(point, 16);
        }
        let throughput = learning.throughput().expect("known");
        assert!((throughput - 1.0 / 7.0).abs() < 0.03, "{throughput}");
    }

    #[test]
    fn arrivals_follow_the_accepted_total() {
        let mut learning = Learning::default();
        for second in 0..200 {
            let point = Point {
                at_ms: second * 1000,
                accepted: second * 30,
                settled: 0,
                busy_ms: 0,
                waiting: 0,
                in_flight: 0,
                ready: 0,
            };
            learning.observe(point, 16);
        }
        assert!((learning.arrivals().expect("known") - 30.0).abs() < 0.01);
    }

    #[test]
    fn arrivals_are_not_distorted_by_a_burst_at_the_first_sample() {
        let mut learning = Learning::default();
        let point = Point { at_ms: 0, accepted: 0, settled: 0, busy_ms: 0, waiting: 0, in_flight: 0, ready: 0 };
        learning.observe(point, 16);
        for second in 1..=10 {
            learning.observe(Point { at_ms: second * 1000, accepted: 500, ..point }, 16);
        }
        let arrivals = learning.arrivals().expect("known");
        assert!((40.0..50.0).contains(&arrivals), "500 in 10 s, the first of them: {arrivals}");
    }

    #[test]
    fn decreasing_total_resets_the_rates() {
        let point = Point { at_ms: 0, accepted: 5, settled: 5, busy_ms: 5, waiting: 0, in_flight: 0, ready: 1 };
        let mut learning = Learning::default();
        learning.observe(point, 16);
        assert!(learning.observe(Point { at_ms: 10_000, accepted: 0, settled: 0, busy_ms: 0, ..point }, 16).reset);
    }
}
