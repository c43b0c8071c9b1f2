//! Simulates hours of an instance, with a poll every 10 s. Tasks arrive; workers start with a delay and settle them.

use super::fixture::*;
use super::*;

/// Number of tasks that a worker settles per second.
const TASKS_PER_SECOND: u64 = 50;
/// Time that a worker needs to start, in seconds.
const STARTUP_SECONDS: i64 = 15;

/// One instance, second by second.
struct Simulation {
    harness: Harness,
    queue: Queue,
    /// Second in which each worker becomes ready.
    workers: Vec<i64>,
    /// Seconds in which retries fall due.
    retries: Vec<i64>,
    next_poll: i64,
    next_wake: Option<i64>,
    /// Second and number of workers of each change.
    counts: Vec<(i64, u32)>,
    /// Highest number of tasks in the queue at the end of a second.
    longest_queue: u64,
}

impl Simulation {
    fn with(workers: u32) -> Self {
        let harness = Harness::just_started(workers);
        let counts = vec![(0, workers)];
        let workers = vec![0; workers as usize];
        let queue = Queue::default();
        Self { harness, queue, workers, retries: vec![], next_poll: 0, next_wake: None, counts, longest_queue: 0 }
    }

    fn run_until(&mut self, end: i64, mut arrivals: impl FnMut(i64) -> u64) {
        while self.harness.seconds < end {
            let now = self.harness.seconds;
            let due = self.retries.iter().filter(|due| **due <= now).count() as u64;
            self.retries.retain(|due| *due > now);
            let arrived = arrivals(now);
            self.queue.accepted += arrived.cast_signed();
            self.queue.length += arrived + due;
            if now >= self.next_poll {
                self.poll(now);
                self.next_poll = now + POLL;
            } else if self.next_wake.is_some_and(|wake| now >= wake) {
                let decision = self.harness.decide();
                self.apply(&decision);
            }
            self.work(now);
            self.harness.seconds += 1;
        }
    }

    fn poll(&mut self, now: i64) {
        self.queue.next_due = self.retries.iter().min().map(|due| due - now);
        let sample = self.queue.sample(now);
        let decision = self.harness.observe(sample);
        self.apply(&decision);
    }

    fn apply(&mut self, decision: &Decision) {
        let (now, before) = (self.harness.seconds, self.harness.workers.replicas);
        self.harness.apply(decision);
        self.next_wake = decision.next_wake.map(|wake| wake.duration_since(at(0)).as_secs());
        if decision.replicas != before {
            self.counts.push((now, decision.replicas));
        }
        self.workers.resize(decision.replicas as usize, now + STARTUP_SECONDS);
        for (pod, start) in self.harness.workers.pods.iter_mut().zip(&self.workers) {
            pod.not_ready_since = (*start > now).then(|| at(*start - STARTUP_SECONDS));
        }
    }

    /// Settles the tasks of this second. Polls happen between seconds, so they never see tasks in flight.
    fn work(&mut self, now: i64) {
        for (pod, start) in self.harness.workers.pods.iter_mut().zip(&self.workers) {
            if *start <= now {
                pod.not_ready_since = None;
            }
        }
        let ready = self.workers.iter().filter(|start| **start <= now).count() as u64;
        let settled = self.queue.length.min(ready * TASKS_PER_SECOND);
        self.queue.length -= settled;
        self.queue.settled += settled.cast_signed();
        self.queue.busy_ms += (settled * 16_000 / TASKS_PER_SECOND).cast_signed();
        self.longest_queue = self.longest_queue.max(self.queue.length);
    }

    /// Number of changes between growing and shrinking.
    fn direction_changes(&self) -> usize {
        let growth: Vec<bool> = self.counts.windows(2).map(|pair| pair[1].1 > pair[0].1).collect();
        growth.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }
}

#[test]
fn scaling_trickle_never_scales_to_zero() {
    let mut simulation = Simulation::with(1);
    // Each task arrives 7 s after a poll, so no poll sees it.
    simulation.run_until(6 * 3600, |now| u64::from(now % 120 == 7));
    assert_eq!(simulation.counts, [(0, 1)]);
    assert_eq!(simulation.queue.accepted, 180);
}

#[test]
fn retry_in_ten_minutes_wakes_a_worker_before_it_is_due() {
    let mut simulation = Simulation::with(1);
    simulation.retries.push(600);
    simulation.run_until(1200, |_| 0);
    assert_eq!(simulation.counts, [(0, 1), (300, 0), (570, 1), (920, 0)]);
    assert_eq!(simulation.longest_queue, 0, "no task waited at the end of a second");
    assert_eq!(simulation.queue.settled, 1);
}

#[test]
fn new_instance_keeps_a_worker_for_the_idle_time() {
    let mut simulation = Simulation::with(1);
    simulation.run_until(290, |_| 0);
    assert_eq!(simulation.counts, [(0, 1)]);
}

#[test]
fn load_step_scales_up_once_and_down_once() {
    let mut simulation = Simulation::with(0);
    // 300 tasks each second for half an hour: 6 workers, 7.5 at 80 %.
    simulation.run_until(7200, |now| if (600..2400).contains(&now) { 300 } else { 0 });
    let max = simulation.counts.iter().map(|(_, count)| *count).max();
    assert_eq!(simulation.direction_changes(), 1, "{:?}", simulation.counts);
    assert!(max.is_some_and(|max| (8..=20).contains(&max)), "{:?}", simulation.counts);
    assert_eq!(simulation.harness.workers.replicas, 0);
    assert!(simulation.longest_queue < 10_000, "{} tasks waited", simulation.longest_queue);
    assert_eq!(simulation.queue.length, 0);
}

#[test]
fn slow_wave_is_followed_without_oscillation() {
    let mut simulation = Simulation::with(1);
    let wave = |now: i64| {
        let phase = now as f64 / 3600.0 * std::f64::consts::TAU;
        (200.0 - 190.0 * phase.cos()) as u64
    };
    simulation.run_until(6 * 3600, wave);
    assert!(simulation.direction_changes() <= 12, "{:?}", simulation.counts);
    assert!(simulation.longest_queue < 100, "{} tasks waited", simulation.longest_queue);
}
