//! Finding work: deliveries from Redis, or due tasks straight from PostgreSQL while Redis is away.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use pulse_core::{ClaimedTask, FailureReason};
use pulse_queue::{Acknowledger, Consumer, Delivery, Queue};
use pulse_store::{Claimer, Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::busy::Busy;
use crate::in_flight::{Capacity, InFlight};
use crate::metrics::WorkerMetrics;
use crate::{Executor, MAX_CLAIM_EVENTS, MAX_IN_FLIGHT_EVENTS, MAX_IN_FLIGHT_TASKS, PrefetchLimit, WorkerHealth};

/// How long one read waits for deliveries.
const READ_BLOCK: Duration = Duration::from_secs(2);
/// Between two polls of PostgreSQL while Redis is away.
const FALLBACK_POLL: Duration = Duration::from_millis(200);
/// Between two tries to reach Redis while it is away.
const REDIS_RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Fetcher {
    consumer: Consumer,
    acknowledger: Acknowledger,
    claimer: Claimer,
    in_flight: InFlight,
    health: WorkerHealth,
    metrics: WorkerMetrics,
    prefetch: PrefetchLimit,
    busy: Busy,
    redis_again_at: Option<Instant>,
    /// Read from Redis and not claimed yet.
    delivered: VecDeque<Delivery>,
    /// The most tasks of the next claim: all that may be in_flight, less after a failure.
    max_claimed: usize,
}

impl Fetcher {
    /// Finds work for `executor`.
    pub(crate) fn new(executor: &Executor, store: &Store, queue: &Queue) -> Self {
        let config = &executor.config;
        Self {
            consumer: Consumer::new(queue, config.name.clone()),
            acknowledger: Acknowledger::new(queue, config.name.clone()),
            claimer: Claimer::new(store, config.name.clone(), config.lease),
            in_flight: executor.in_flight.clone(),
            health: executor.health.clone(),
            metrics: executor.metrics.clone(),
            prefetch: executor.prefetch.clone(),
            busy: executor.busy.clone(),
            redis_again_at: None,
            delivered: VecDeque::new(),
            max_claimed: MAX_IN_FLIGHT_TASKS,
        }
    }

    /// Claims and starts tasks until `shutdown`. A claim that is under way is finished first.
    pub(crate) async fn run(&mut self, executor: &Executor, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            self.health.polled();
            self.metrics.in_flight.set(i64::try_from(self.in_flight.len()).unwrap_or(i64::MAX));
            let capacity = tokio::select! {
                capacity = self.in_flight.capacity(self.prefetch.limit(), MAX_IN_FLIGHT_EVENTS, READ_BLOCK) => capacity,
                () = shutdown.cancelled() => return,
            };
            let Some(capacity) = capacity else { continue };
            if !self.delivered.is_empty() {
                // Before any more is read: a pile of deliveries that nobody works on helps nobody.
                self.claim_deliveries(capacity, executor, shutdown).await;
            } else if self.redis_again_at.is_none_or(|at| at <= Instant::now()) {
                self.take_from_redis(capacity, executor, shutdown).await;
            } else {
                self.take_from_postgres(capacity, executor, shutdown).await;
            }
        }
    }

    async fn take_from_redis(&mut self, capacity: Capacity, executor: &Executor, shutdown: &CancellationToken) {
        let read = tokio::select! {
            read = self.consumer.read(capacity.tasks, READ_BLOCK) => read,
            () = shutdown.cancelled() => return,
        };
        match read {
            Ok(deliveries) => {
                self.set_redis_away(false);
                if deliveries.is_empty() {
                    // Redis may answer and still not be told of new tasks: it refuses to grow beyond its memory.
                    self.claim_due(capacity, executor, shutdown).await;
                } else {
                    self.delivered.extend(deliveries);
                    self.claim_deliveries(capacity, executor, shutdown).await;
                }
            }
            Err(error) => {
                if !self.health.is_redis_away() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot read from Redis: polling PostgreSQL"
                    );
                }
                self.set_redis_away(true);
            }
        }
    }

    fn set_redis_away(&mut self, away: bool) {
        self.redis_again_at = away.then(|| Instant::now() + REDIS_RETRY);
        if self.health.set_redis_away(away) && !away {
            tracing::info!("reading from Redis again");
        }
    }

    /// Claims what was delivered, as much as there is capacity for; the rest stays, and so does what PostgreSQL could not
    /// answer for. What is still there at the shutdown is pending in Redis: it is reaped, and the sweep finds the tasks.
    async fn claim_deliveries(&mut self, capacity: Capacity, executor: &Executor, shutdown: &CancellationToken) {
        let tasks = self.delivered.len().min(capacity.tasks).min(self.max_claimed);
        let events = capacity.events.min(MAX_CLAIM_EVENTS);
        let mut entries: HashMap<Uuid, String> = HashMap::with_capacity(tasks);
        let mut useless: Vec<String> = Vec::new();
        for Delivery { entry_id, task_id } in self.delivered.drain(..tasks) {
            useless.extend(entries.insert(task_id, entry_id));
        }
        let ids: Vec<Uuid> = entries.keys().copied().collect();
        let claiming = self.busy.statement();
        let result = self.claimer.claim(&ids, events).await;
        drop(claiming);
        let mut claimed_events = 0;
        match result {
            Ok(claimed) => {
                self.max_claimed = (self.max_claimed * 2).min(MAX_IN_FLIGHT_TASKS);
                for task in claimed {
                    claimed_events += task.event_count;
                    let entry = entries.remove(&task.id);
                    self.begin(task, entry, executor);
                }
            }
            Err(error) => {
                self.back_off(error, shutdown).await;
                // Not one of them was looked at.
                claimed_events = usize::MAX;
            }
        }
        if claimed_events < events {
            // What could not be claimed is done, in_flight by somebody, or due later: this delivery is of no use to anybody.
            useless.extend(entries.into_values());
        } else {
            let left = entries.into_iter().map(|(task_id, entry_id)| Delivery { entry_id, task_id });
            left.for_each(|delivery| self.delivered.push_front(delivery));
        }
        if let Err(error) = self.acknowledger.acknowledge(&useless).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot acknowledge deliveries that were of no use"
            );
        }
    }

    fn begin(&self, task: ClaimedTask, entry: Option<String>, executor: &Executor) {
        if task.crashed {
            self.metrics.count_retry(FailureReason::Crash);
        }
        self.in_flight.add(&task, entry);
        executor.start(task);
    }

    /// After a failed claim: the next one is half as large, because size may have been the reason, and comes later,
    /// because PostgreSQL may be away.
    async fn back_off(&mut self, error: StoreError, shutdown: &CancellationToken) {
        self.max_claimed = (self.max_claimed / 2).max(1);
        tracing::warn!(error = &error as &dyn std::error::Error, at_most = self.max_claimed, "cannot claim tasks");
        pause(FALLBACK_POLL, shutdown).await;
    }

    async fn take_from_postgres(&mut self, capacity: Capacity, executor: &Executor, shutdown: &CancellationToken) {
        let found = self.claim_due(capacity, executor, shutdown).await;
        if found == 0 {
            // With jitter, so that many workers do not poll as one.
            pause(FALLBACK_POLL.mul_f64(0.75 + 0.5 * rand::random::<f64>()), shutdown).await;
        }
    }

    /// Claims due tasks without Redis, as much as there is capacity for; returns how many there were.
    async fn claim_due(&mut self, capacity: Capacity, executor: &Executor, shutdown: &CancellationToken) -> usize {
        let (tasks, events) = (capacity.tasks.min(self.max_claimed), capacity.events.min(MAX_CLAIM_EVENTS));
        match self.claimer.claim_due(tasks, events).await {
            Ok(claimed) => {
                self.max_claimed = (self.max_claimed * 2).min(MAX_IN_FLIGHT_TASKS);
                let found = claimed.len();
                for task in claimed {
                    self.begin(task, None, executor);
                }
                found
            }
            Err(error) => {
                self.back_off(error, shutdown).await;
                0
            }
        }
    }
}

async fn pause(duration: Duration, shutdown: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(duration) => {}
        () = shutdown.cancelled() => {}
    }
}
