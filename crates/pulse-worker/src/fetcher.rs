//! The fetcher: claims delivered tasks from Redis, or due tasks from PostgreSQL while Redis is unavailable.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use pulse_core::{ClaimedTask, FailureReason, READ_BLOCK};
use pulse_queue::{Acknowledger, Consumer, Delivery, EntryId, Queue};
use pulse_store::{Claimer, Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::busy::BusyTime;
use crate::config::{MAX_CLAIM_EVENTS, MAX_IN_FLIGHT_EVENTS, MAX_IN_FLIGHT_TASKS};
use crate::executor::Executor;
use crate::health::WorkerHealth;
use crate::in_flight::{Capacity, InFlight};
use crate::metrics::WorkerMetrics;
use crate::prefetch::PrefetchLimit;

/// Interval of polling PostgreSQL while Redis is unavailable.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Delay between two attempts to read from an unavailable Redis.
const REDIS_RETRY_DELAY: Duration = Duration::from_secs(1);

pub(crate) struct Fetcher {
    consumer: Consumer,
    acknowledger: Acknowledger,
    claimer: Claimer,
    in_flight: InFlight,
    health: WorkerHealth,
    metrics: WorkerMetrics,
    prefetch: PrefetchLimit,
    busy: BusyTime,
    redis_retry_at: Option<Instant>,
    /// How long the next read waits for deliveries.
    read_block: Duration,
    /// Deliveries that were read from Redis and not claimed yet.
    delivered: VecDeque<Delivery>,
    /// Maximum number of tasks in the next claim; halved after a failed claim.
    max_claimed: usize,
}

impl Fetcher {
    /// Creates a fetcher that claims tasks for `executor`.
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
            redis_retry_at: None,
            read_block: Duration::ZERO,
            delivered: VecDeque::new(),
            max_claimed: MAX_IN_FLIGHT_TASKS,
        }
    }

    /// Claims and starts tasks until `shutdown`. A running claim is completed first.
    pub(crate) async fn run(&mut self, executor: &Executor, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            self.health.set_polled();
            self.metrics.in_flight.set(i64::try_from(self.in_flight.len()).unwrap_or(i64::MAX));
            let capacity = tokio::select! {
                capacity = self.in_flight.capacity(self.prefetch.limit(), MAX_IN_FLIGHT_EVENTS, READ_BLOCK) => capacity,
                () = shutdown.cancelled() => return,
            };
            let Some(capacity) = capacity else { continue };
            if !self.delivered.is_empty() {
                // Claim before reading more: unclaimed deliveries are withheld from other workers.
                self.claim_deliveries(capacity, executor, shutdown).await;
            } else if self.redis_retry_at.is_none_or(|at| at <= Instant::now()) {
                self.fetch_from_redis(capacity, executor, shutdown).await;
            } else {
                self.fetch_from_postgres(capacity, executor, shutdown).await;
            }
        }
    }

    async fn fetch_from_redis(&mut self, capacity: Capacity, executor: &Executor, shutdown: &CancellationToken) {
        let read = tokio::select! {
            read = self.consumer.read(capacity.tasks, self.read_block) => read,
            () = shutdown.cancelled() => return,
        };
        match read {
            Ok(deliveries) => {
                self.set_redis_unavailable(false);
                if deliveries.is_empty() {
                    // A Redis that is full answers reads, but nothing can be enqueued in it. So due tasks that Redis
                    // does not deliver are searched for at once, then as often as without Redis, then seldom again.
                    let claimed = self.claim_due(capacity, executor, shutdown).await;
                    let longer = (self.read_block * 2).clamp(POLL_INTERVAL, READ_BLOCK);
                    self.read_block = if claimed > 0 { Duration::ZERO } else { longer };
                } else {
                    self.read_block = READ_BLOCK;
                    self.delivered.extend(deliveries);
                    self.claim_deliveries(capacity, executor, shutdown).await;
                }
            }
            Err(error) => {
                if !self.health.is_redis_unavailable() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot read from Redis: polling PostgreSQL instead"
                    );
                }
                self.set_redis_unavailable(true);
            }
        }
    }

    fn set_redis_unavailable(&mut self, unavailable: bool) {
        self.redis_retry_at = unavailable.then(|| Instant::now() + REDIS_RETRY_DELAY);
        if self.health.set_redis_unavailable(unavailable) && !unavailable {
            tracing::info!("reading from Redis again");
        }
    }

    /// Claims delivered tasks up to the capacity. The others stay in `delivered`, and so do all if the claim fails.
    /// Entries that are left at the shutdown stay pending in Redis; the scheduler reaps them and requeues their tasks.
    async fn claim_deliveries(&mut self, capacity: Capacity, executor: &Executor, shutdown: &CancellationToken) {
        let tasks = self.delivered.len().min(capacity.tasks).min(self.max_claimed);
        let events = capacity.events.min(MAX_CLAIM_EVENTS);
        let mut entries: HashMap<Uuid, EntryId> = HashMap::with_capacity(tasks);
        let mut unclaimable: Vec<EntryId> = Vec::new();
        for Delivery { entry_id, task_id } in self.delivered.drain(..tasks) {
            unclaimable.extend(entries.insert(task_id, entry_id));
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
                    self.start(task, entry, executor);
                }
            }
            Err(error) => {
                self.back_off(error, shutdown).await;
                // No delivery was tried: keep all of them.
                claimed_events = usize::MAX;
            }
        }
        if claimed_events < events {
            // A task that could not be claimed is settled, leased to another worker, or not due: drop the delivery.
            unclaimable.extend(entries.into_values());
        } else {
            let remaining = entries.into_iter().map(|(task_id, entry_id)| Delivery { entry_id, task_id });
            remaining.for_each(|delivery| self.delivered.push_front(delivery));
        }
        if let Err(error) = self.acknowledger.acknowledge(&unclaimable).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot acknowledge deliveries that were not claimed"
            );
        }
    }

    fn start(&self, task: ClaimedTask, entry: Option<EntryId>, executor: &Executor) {
        if task.crashed {
            self.metrics.count_retry(FailureReason::Crash);
        }
        let leased = self.in_flight.add(&task, entry);
        executor.start(task, &leased);
    }

    /// Waits after a failed claim, because PostgreSQL may be unavailable, and halves the next claim, because its size
    /// may have been the reason.
    async fn back_off(&mut self, error: StoreError, shutdown: &CancellationToken) {
        self.max_claimed = (self.max_claimed / 2).max(1);
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            max_claimed = self.max_claimed,
            "cannot claim tasks: trying again with fewer"
        );
        pause(POLL_INTERVAL, shutdown).await;
    }

    async fn fetch_from_postgres(&mut self, capacity: Capacity, executor: &Executor, shutdown: &CancellationToken) {
        let claimed = self.claim_due(capacity, executor, shutdown).await;
        if claimed == 0 {
            // With jitter, so that workers do not poll at the same time.
            pause(POLL_INTERVAL.mul_f64(0.75 + 0.5 * rand::random::<f64>()), shutdown).await;
        }
    }

    /// Claims due tasks from PostgreSQL, up to the capacity. Returns the number of claimed tasks.
    async fn claim_due(&mut self, capacity: Capacity, executor: &Executor, shutdown: &CancellationToken) -> usize {
        let (tasks, events) = (capacity.tasks.min(self.max_claimed), capacity.events.min(MAX_CLAIM_EVENTS));
        match self.claimer.claim_due(tasks, events).await {
            Ok(claimed) => {
                self.max_claimed = (self.max_claimed * 2).min(MAX_IN_FLIGHT_TASKS);
                let count = claimed.len();
                for task in claimed {
                    self.start(task, None, executor);
                }
                count
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
