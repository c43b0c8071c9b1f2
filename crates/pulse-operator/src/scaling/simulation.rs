//! Hours of an ingest in a moment: tasks arrive, workers start late and work, polls come every 10 s.

use super::fixture::*;
use super::*;

/// A worker settles so many tasks each second, and needs so many seconds to start.
const SPEED: u64 = 50;
const START: i64 = 15;

/// An ingest, second by second.
struct Simulation {
    scene: Scene,
    queue: Queue,
    /// When each worker became, or becomes, ready.
    workers: Vec<i64>,
    /// When retries fall due.
    retries: Vec<i64>,
    next_poll: i64,
    next_wake: Option<i64>,
    /// Number of workers, each time that it changed.
    counts: Vec<(i64, u32)>,
    /// Tasks that waited, at worst.
    longest_queue: u64,
}

impl Simulation {
    fn with(workers: u32) -> Self {
        let scene = Scene::just_started(workers);
        let counts = vec![(0, workers)];
        let workers = vec![0; workers as usize];
        let queue = Queue::default();
        Self { scene, queue, workers, retries: vec![], next_poll: 0, next_wake: None, counts, longest_queue: 0 }
    }

    fn run_until(&mut self, end: i64, mut arrivals: impl FnMut(i64) -> u64) {
        while self.scene.seconds < end {
            let now = self.scene.seconds;
            let due = self.retries.iter().filter(|due| **due <= now).count() as u64;
            self.retries.retain(|due| *due > now);
            let arrived = arrivals(now);
            self.queue.accepted += arrived.cast_signed();
            self.queue.length += arrived + due;
            if now >= self.next_poll {
                self.poll(now);
                self.next_poll = now + POLL;
            } else if self.next_wake.is_some_and(|wake| now >= wake) {
                let decision = self.scene.decide();
                self.act(&decision);
            }
            self.work(now);
            self.scene.seconds += 1;
        }
    }

    fn poll(&mut self, now: i64) {
        self.queue.next_due = self.retries.iter().min().map(|due| due - now);
        let sample = self.queue.whole(now);
        let decision = self.scene.see(sample);
        self.act(&decision);
    }

    fn act(&mut self, decision: &Decision) {
        let (now, before) = (self.scene.seconds, self.scene.workers.replicas);
        self.scene.act(decision);
        self.next_wake = decision.next_wake.map(|wake| wake.duration_since(at(0)).as_secs());
        if decision.replicas != before {
            self.counts.push((now, decision.replicas));
        }
        self.workers.resize(decision.replicas as usize, now + START);
        for (pod, start) in self.scene.workers.pods.iter_mut().zip(&self.workers) {
            pod.not_ready_since = (*start > now).then(|| at(*start - START));
        }
    }

    /// What is settled within this second; what is looked at between the seconds is never in flight.
    fn work(&mut self, now: i64) {
        for (pod, start) in self.scene.workers.pods.iter_mut().zip(&self.workers) {
            if *start <= now {
                pod.not_ready_since = None;
            }
        }
        let ready = self.workers.iter().filter(|start| **start <= now).count() as u64;
        let settled = self.queue.length.min(ready * SPEED);
        self.queue.length -= settled;
        self.queue.settled += settled.cast_signed();
        self.queue.busy_ms += (settled * 16_000 / SPEED).cast_signed();
        self.longest_queue = self.longest_queue.max(self.queue.length);
    }

    /// How often the number turned from growing to shrinking or back.
    fn turns(&self) -> usize {
        let growth: Vec<bool> = self.counts.windows(2).map(|pair| pair[1].1 > pair[0].1).collect();
        growth.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }
}

#[test]
fn a_trickle_that_reads_empty_at_every_poll_never_goes_to_zero() {
    let mut simulation = Simulation::with(1);
    // Between two polls, always: 7 s after the first of them.
    simulation.run_until(6 * 3600, |now| u64::from(now % 120 == 7));
    assert_eq!(simulation.counts, [(0, 1)]);
    assert_eq!(simulation.queue.accepted, 180);
}

#[test]
fn a_retry_in_ten_minutes_finds_a_worker_that_was_woken_for_it() {
    let mut simulation = Simulation::with(1);
    simulation.retries.push(600);
    simulation.run_until(1200, |_| 0);
    assert_eq!(simulation.counts, [(0, 1), (300, 0), (570, 1), (920, 0)]);
    assert_eq!(simulation.longest_queue, 0, "it never waited");
    assert_eq!(simulation.queue.settled, 1);
}

#[test]
fn a_first_start_waits_for_its_first_task() {
    let mut simulation = Simulation::with(1);
    simulation.run_until(290, |_| 0);
    assert_eq!(simulation.counts, [(0, 1)]);
}

#[test]
fn a_step_of_load_goes_up_once_and_down_once() {
    let mut simulation = Simulation::with(0);
    // 300 tasks each second for half an hour: 6 workers, 7.5 at 80 %.
    simulation.run_until(7200, |now| if (600..2400).contains(&now) { 300 } else { 0 });
    let most = simulation.counts.iter().map(|(_, count)| *count).max();
    assert_eq!(simulation.turns(), 1, "{:?}", simulation.counts);
    assert!(most.is_some_and(|most| (8..=20).contains(&most)), "{:?}", simulation.counts);
    assert_eq!(simulation.scene.workers.replicas, 0);
    assert!(simulation.longest_queue < 10_000, "{} tasks waited", simulation.longest_queue);
    assert_eq!(simulation.queue.length, 0);
}

#[test]
fn a_slow_wave_is_followed_without_turning_more_often_than_it() {
    let mut simulation = Simulation::with(1);
    let wave = |now: i64| {
        let phase = now as f64 / 3600.0 * std::f64::consts::TAU;
        (200.0 - 190.0 * phase.cos()) as u64
    };
    simulation.run_until(6 * 3600, wave);
    assert!(simulation.turns() <= 12, "{:?}", simulation.counts);
    assert!(simulation.longest_queue < 100, "{} tasks waited", simulation.longest_queue);
}
