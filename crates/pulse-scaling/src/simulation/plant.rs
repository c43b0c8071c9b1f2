//! A queue and its workers, second by second.
//!
//! A worker processes up to `slots` tasks at once, oldest first. An attempt of a second or more takes its slot for whole
//! seconds, on average its time; a shorter one takes a part of the slots' time within one second. A removed worker ends
//! its tasks first, and counts until then. Kubernetes removes workers that are not ready first, then the newest.

use std::collections::{BTreeMap, VecDeque};

use super::chance::Chance;
use super::trace::Trace;

/// Time after which the tasks of a lost worker are due again: their leases expire.
const LEASE_S: u32 = 40;
/// Time after which Kubernetes notices that a node is lost.
const NOTICED_S: u32 = 40;

/// The state of the queue and its workers, and what it has cost so far.
#[derive(Debug, Clone)]
pub struct Plant<'t> {
    pub(super) trace: &'t Trace,
    /// Apart from that of the times of attempts, so that the same tasks arrive whatever the autoscaler does.
    arrivals: Chance,
    attempts: Chance,
    now: u32,
    queue: VecDeque<Waiting>,
    waiting: u64,
    workers: Vec<Worker>,
    draining: Vec<Worker>,
    running: BTreeMap<u32, Vec<Running>>,
    retries: BTreeMap<u32, Vec<Waiting>>,
    /// Time of slots that short attempts took in the last second, and what they took beyond it.
    short_busy: f64,
    overdrawn: f64,
    next_worker: usize,
    names: u64,
    pub(super) totals: Totals,
    pub(super) costs: Costs,
}

/// Totals as the scheduler publishes them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) accepted: u64,
    pub(super) attempts: u64,
    pub(super) retried: u64,
    pub(super) attempt_seconds: f64,
}

/// What a run has cost.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Costs {
    pub(super) seconds_over: u32,
    pub(super) worker_seconds: u64,
    pub(super) max_wait: u32,
    pub(super) peak: u32,
    pub(super) changes: u32,
}

/// One worker.
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    name: u64,
    ready_at: u32,
    busy: u16,
    /// Time when its node was lost, and when its pod is replaced.
    lost: Option<(u32, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: u32,
    count: u64,
    attempt: u32,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    worker: u64,
    attempt: u32,
    fails: bool,
}

impl Worker {
    fn serves(&self, now: u32) -> bool {
        self.lost.is_none() && self.ready_at <= now
    }

    /// Time since when Kubernetes reports the pod as not ready; `None` if it is ready.
    pub fn not_ready_since(&self, now: u32, start_s: u32) -> Option<u32> {
        match self.lost {
            Some((at, _)) if at + NOTICED_S <= now => Some(at + NOTICED_S),
            _ if self.ready_at > now => Some(self.ready_at.saturating_sub(start_s)),
            _ => None,
        }
    }
}

impl<'t> Plant<'t> {
    /// An empty queue, with the workers of the start ready.
    pub fn new(trace: &'t Trace, seed: u64) -> Self {
        let mut plant = Self {
            trace,
            arrivals: Chance::new(seed),
            attempts: Chance::new(!seed),
            now: 0,
            queue: VecDeque::new(),
            waiting: 0,
            workers: Vec::new(),
            draining: Vec::new(),
            running: BTreeMap::new(),
            retries: BTreeMap::new(),
            short_busy: 0.0,
            overdrawn: 0.0,
            next_worker: 0,
            names: 0,
            totals: Totals::default(),
            costs: Costs::default(),
        };
        plant.add_workers(trace.workers.unwrap_or(trace.min), 0);
        plant
    }

    /// The time, in seconds from the start.
    pub fn now(&self) -> u32 {
        self.now
    }

    /// Number of due tasks that no worker has.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Number of tasks in flight. Of short ones, their mean number in the last second.
    pub fn in_flight(&self) -> u64 {
        let busy = |workers: &[Worker]| workers.iter().map(|worker| u64::from(worker.busy)).sum::<u64>();
        busy(&self.workers) + busy(&self.draining) + self.short_busy.round() as u64
    }

    /// Time for which the oldest waiting task has waited, in seconds.
    pub fn oldest_wait(&self) -> Option<u32> {
        self.queue.front().map(|oldest| self.now.saturating_sub(oldest.since))
    }

    /// Time when the next retry falls due.
    pub fn next_retry(&self) -> Option<u32> {
        self.retries.keys().next().copied()
    }

    /// Number of tasks that wait for a retry.
    pub fn retrying(&self) -> u64 {
        self.retries.values().flatten().map(|retry| retry.count).sum()
    }

    /// The workers that are not being removed.
    pub fn workers(&self) -> &[Worker] {
        &self.workers
    }

    /// Whether tasks wait, run or are to be retried.
    pub fn has_work(&self) -> bool {
        self.waiting > 0 || !self.running.is_empty() || !self.retries.is_empty()
    }

    /// Sets the number of workers.
    pub fn scale(&mut self, replicas: u32) {
        let current = self.workers.len();
        let replicas = replicas as usize;
        if replicas == current {
            return;
        }
        self.costs.changes += 1;
        if replicas > current {
            self.add_workers((replicas - current) as u32, self.now + self.trace.start_s);
            return;
        }
        let now = self.now;
        self.workers.sort_by_key(|worker| (!worker.serves(now), worker.ready_at, worker.name));
        let removed = self.workers.split_off(replicas);
        self.draining.extend(removed.into_iter().filter(|worker| worker.busy > 0 && worker.lost.is_none()));
    }

    fn add_workers(&mut self, count: u32, ready_at: u32) {
        for _ in 0..count {
            self.workers.push(Worker { name: self.names, ready_at, busy: 0, lost: None });
            self.names += 1;
        }
    }

    /// Passes one second.
    pub fn tick(&mut self) {
        self.end_attempts();
        if let Some(due) = self.retries.remove(&self.now) {
            due.into_iter().for_each(|retry| self.enqueue(retry.count, retry.attempt));
        }
        let arrived = self.arrivals.poisson(self.trace.rate_at(self.now));
        self.totals.accepted += arrived;
        self.enqueue(arrived, 1);
        self.lose_nodes();
        self.start_attempts();
        self.count_costs();
        self.now += 1;
    }

    fn enqueue(&mut self, count: u64, attempt: u32) {
        if count > 0 {
            self.waiting += count;
            self.queue.push_back(Waiting { since: self.now, count, attempt });
        }
    }

    fn end_attempts(&mut self) {
        for Running { worker, attempt, fails } in self.running.remove(&self.now).unwrap_or_default() {
            let workers = self.workers.iter_mut().chain(&mut self.draining);
            if let Some(worker) = workers.into_iter().find(|it| it.name == worker) {
                worker.busy -= 1;
            }
            self.end(1, attempt, fails);
        }
        self.draining.retain(|worker| worker.busy > 0);
    }

    fn end(&mut self, count: u64, attempt: u32, fails: bool) {
        self.totals.attempts += count;
        if fails && attempt < self.trace.max_attempts {
            self.totals.retried += count;
            let due = self.now + self.trace.retry_delay(attempt);
            self.retries.entry(due).or_default().push(Waiting { since: due, count, attempt: attempt + 1 });
        }
    }

    fn lose_nodes(&mut self) {
        let now = self.now;
        let losses = self.trace.node_losses.iter().filter(|loss| loss.at == now);
        for (share, until) in losses.map(|loss| (loss.share, now + loss.replaced_after_s)).collect::<Vec<_>>() {
            let lost = (self.workers.len() as f64 * share).ceil() as usize;
            let mut names = Vec::new();
            for worker in self.workers.iter_mut().filter(|worker| worker.serves(now)).take(lost) {
                (worker.lost, worker.busy) = (Some((now, until)), 0);
                names.push(worker.name);
            }
            self.lose_attempts(&names);
        }
        for worker in &mut self.workers {
            if worker.lost.is_some_and(|(_, until)| until <= now) {
                (worker.lost, worker.ready_at) = (None, now + self.trace.start_s);
            }
        }
    }

    fn lose_attempts(&mut self, workers: &[u64]) {
        let mut lost = Vec::new();
        for running in self.running.values_mut() {
            lost.extend(running.extract_if(.., |it| workers.contains(&it.worker)));
        }
        self.running.retain(|_, running| !running.is_empty());
        let due = self.now + LEASE_S;
        let again = lost.iter().map(|it| Waiting { since: due, count: 1, attempt: it.attempt });
        self.retries.entry(due).or_default().extend(again);
        self.retries.retain(|_, retries| !retries.is_empty());
    }

    fn start_attempts(&mut self) {
        let now = self.now;
        let slots = self.trace.slots;
        let serving = self.workers.iter().filter(|worker| worker.serves(now));
        let free: f64 = serving.map(|worker| f64::from(slots - worker.busy)).sum();
        let mut left = free - self.overdrawn;
        self.short_busy = self.overdrawn.min(free);
        let fails = self.trace.fails_at(now);
        while left > 1e-9
            && let Some(&Waiting { count, attempt, .. }) = self.queue.front()
        {
            let (taken, time) = match self.trace.service_s.short_and_fixed(self.now) {
                Some(time) => (count.min((left / time).ceil() as u64).max(1), time),
                None => (1, self.trace.service_s.time(self.now, &mut self.attempts)),
            };
            self.take(taken);
            if time < 1.0 {
                left -= taken as f64 * time;
                self.short_busy += taken as f64 * time;
                self.end(taken, attempt, fails);
            } else {
                left -= 1.0;
                let end = now + self.attempts.rounded(time);
                let worker = self.occupy(now);
                self.running.entry(end).or_default().push(Running { worker, attempt, fails });
            }
        }
        self.overdrawn = (-left).max(0.0);
        self.short_busy = self.short_busy.min(free);
    }

    fn take(&mut self, count: u64) {
        self.waiting -= count;
        if let Some(oldest) = self.queue.front_mut() {
            oldest.count -= count;
            if oldest.count == 0 {
                self.queue.pop_front();
            }
        }
    }

    /// Takes a slot of the next worker that has one, and returns the worker's name.
    fn occupy(&mut self, now: u32) -> u64 {
        for _ in 0..self.workers.len() {
            self.next_worker = (self.next_worker + 1) % self.workers.len();
            let worker = &mut self.workers[self.next_worker];
            if worker.serves(now) && worker.busy < self.trace.slots {
                worker.busy += 1;
                return worker.name;
            }
        }
        unreachable!("a slot is free while time of slots is left");
    }

    fn count_costs(&mut self) {
        let running = self.in_flight();
        self.totals.attempt_seconds += running as f64;
        let costs = &mut self.costs;
        let wait = self.queue.front().map_or(0, |oldest| self.now.saturating_sub(oldest.since));
        costs.max_wait = costs.max_wait.max(wait);
        costs.seconds_over += u32::from(wait > self.trace.target_age_s);
        costs.worker_seconds += (self.workers.len() + self.draining.len()) as u64;
        costs.peak = costs.peak.max(self.workers.len() as u32);
    }
}
