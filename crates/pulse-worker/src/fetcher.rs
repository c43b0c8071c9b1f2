//! The fetcher: claims delivered tasks from Redis, or due tasks from PostgreSQL while Redis is unavailable.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use pulse_core::{ClaimedTask, READ_BLOCK};
use pulse_queue::{Acknowledger, Consumer, Delivery, EntryId, Queue};
use pulse_store::{Claim, Claimer, Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{MAX_CLAIM_BYTES, MAX_IN_FLIGHT_TASKS};
use crate::executor::Executor;
use crate::health::WorkerHealth;
use crate::in_flight::{Capacity, InFlight};
use crate::metrics::WorkerMetrics;
use crate::prefetch::PrefetchLimit;

/// Interval of polling PostgreSQL while Redis is unavailable.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// A task whose worker died runs alone for so long at least: most causes of a crash act at once, and a slow task must not
/// keep the other slots empty.
const ALONE: Duration = Duration::from_secs(1);
/// Interval of looking whether claims are still paused.
const PAUSE_POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Delay between two attempts to read from an unavailable Redis.
const REDIS_RETRY_DELAY: Duration = Duration::from_secs(1);

pub(crate) struct Fetcher {
    consumer: Consumer,
    acknowledger: Acknowledger,
    claimer: Claimer,
    store: Store,
    in_flight: InFlight,
    health: WorkerHealth,
    metrics: WorkerMetrics,
    prefetch: PrefetchLimit,
    redis_retry_at: Option<Instant>,
    /// How long the next read waits for deliveries.
    read_block: Duration,
    /// Deliveries that were read from Redis and not claimed yet.
    delivered: VecDeque<Delivery>,
    /// Tasks whose worker died, with their stream entries: each is claimed alone.
    crashed: VecDeque<(Uuid, Option<EntryId>)>,
    /// The last claim found all claims paused.
    paused: bool,
    max_in_flight_bytes: usize,
    /// Maximum number of tasks in the next claim: doubled by each claim, and halved by one that fails. Starts with 1,
    /// because the tasks may have killed the worker before this one.
    max_claimed: usize,
}

impl Fetcher {
    /// Creates a fetcher that claims tasks for `executor`.
    pub(crate) fn new(executor: &Executor, store: &Store, queue: &Queue) -> Self {
        let config = &executor.config;
        Self {
            consumer: Consumer::new(queue, config.name.clone()),
            acknowledger: Acknowledger::new(queue, config.name.clone()),
            store: store.clone(),
            claimer: Claimer::new(store, config.name.clone(), config.lease),
            in_flight: executor.in_flight.clone(),
            health: executor.health.clone(),
            metrics: executor.metrics.clone(),
            prefetch: executor.prefetch.clone(),
            redis_retry_at: None,
            read_block: Duration::ZERO,
            delivered: VecDeque::new(),
            crashed: VecDeque::new(),
            paused: false,
            max_in_flight_bytes: config.max_in_flight_bytes,
            max_claimed: 1,
        }
    }

    /// Claims and starts tasks until `shutdown`. A running claim is completed first.
    pub(crate) async fn run(&mut self, executor: &Executor, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            self.health.set_polled();
            self.metrics.in_flight.set(i64::try_from(self.in_flight.len()).unwrap_or(i64::MAX));
            if self.paused {
                self.wait_for_resume(shutdown).await;
                continue;
            }
            let capacity = tokio::select! {
                capacity = self.in_flight.capacity(self.prefetch.limit(), self.max_in_flight_bytes, READ_BLOCK) => capacity,
                () = shutdown.cancelled() => return,
            };
            let Some(capacity) = capacity else { continue };
            if let Some((task_id, entry)) = self.crashed.pop_front() {
                self.run_alone(task_id, entry, executor, shutdown).await;
            }
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

    /// Waits a short time, and looks whether claims are still paused. A claim finds that out by itself, but each one would
    /// lock and leave the tasks.
    async fn wait_for_resume(&mut self, shutdown: &CancellationToken) {
        pause(PAUSE_POLL_INTERVAL, shutdown).await;
        if let Ok(None) = self.store.find_pause().await {
            tracing::info!("claims are resumed");
            self.paused = false;
        }
    }

    fn set_paused(&mut self) {
        tracing::info!("claims are paused: in-flight tasks end, and nothing is claimed");
        self.paused = true;
    }

    async fn fetch_from_redis(&mut self, capacity: Capacity, executor: &Executor, shutdown: &CancellationToken) {
        let read = tokio::select! {
            read = self.consumer.read(capacity.tasks, self.block()) => read,
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
        let mut entries: HashMap<Uuid, EntryId> = HashMap::with_capacity(tasks);
        let mut unclaimable: Vec<EntryId> = Vec::new();
        for Delivery { entry_id, task_id } in self.delivered.drain(..tasks) {
            unclaimable.extend(entries.insert(task_id, entry_id));
        }
        let ids: Vec<Uuid> = entries.keys().copied().collect();
        let result = self.claimer.claim(&ids, capacity.bytes.min(MAX_CLAIM_BYTES)).await;
        let left = match result {
            Ok(Claim { tasks, left, crashed, paused }) => {
                if paused {
                    self.set_paused();
                }
                self.max_claimed = (self.max_claimed * 2).min(MAX_IN_FLIGHT_TASKS);
                for task in tasks {
                    let entry = entries.remove(&task.id);
                    self.start(task, entry, executor);
                }
                self.crashed.extend(crashed.into_iter().map(|id| (id, entries.remove(&id))));
                left
            }
            Err(error) => {
                self.back_off(error, shutdown).await;
                ids
            }
        };
        for task_id in left {
            let entry = entries.remove(&task_id);
            entry.into_iter().for_each(|entry_id| self.delivered.push_front(Delivery { entry_id, task_id }));
        }
        // The other tasks are settled, leased by another worker, not due, or locked: drop their deliveries.
        unclaimable.extend(entries.into_values());
        self.acknowledge(&unclaimable).await;
    }

    async fn acknowledge(&mut self, unclaimable: &[EntryId]) {
        if let Err(error) = self.acknowledger.acknowledge(unclaimable).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot acknowledge deliveries that were not claimed"
            );
        }
    }

    fn start(&self, task: ClaimedTask, entry: Option<EntryId>, executor: &Executor) {
        self.health.set_claimed();
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
        let (tasks, bytes) = (capacity.tasks.min(self.max_claimed), capacity.bytes.min(MAX_CLAIM_BYTES));
        match self.claimer.claim_due(tasks, bytes).await {
            Ok(Claim { paused: true, .. }) => {
                self.set_paused();
                0
            }
            Ok(Claim { tasks, crashed, .. }) => {
                self.max_claimed = (self.max_claimed * 2).min(MAX_IN_FLIGHT_TASKS);
                if self.crashed.is_empty() {
                    // The next search finds the others again.
                    self.crashed.extend(crashed.first().map(|id| (*id, None)));
                }
                let count = tasks.len();
                for task in tasks {
                    self.start(task, None, executor);
                }
                count + self.crashed.len()
            }
            Err(error) => {
                self.back_off(error, shutdown).await;
                0
            }
        }
    }

    /// How long the next read waits for deliveries.
    fn block(&self) -> Duration {
        if self.crashed.is_empty() { self.read_block } else { Duration::ZERO }
    }

    /// Runs a task whose worker died. If it kills this worker too, it takes no other task along: nothing else is in flight
    /// when it starts, and nothing is claimed while it runs, each for at most [`ALONE`].
    async fn run_alone(
        &mut self,
        task_id: Uuid,
        entry: Option<EntryId>,
        executor: &Executor,
        shutdown: &CancellationToken,
    ) {
        self.in_flight.emptied(Instant::now() + ALONE).await;
        match self.claimer.claim_alone(task_id).await {
            Ok(Claim { paused: true, .. }) => {
                self.crashed.push_front((task_id, entry));
                self.set_paused();
            }
            Ok(Claim { tasks, .. }) if tasks.is_empty() => self.acknowledge(&Vec::from_iter(entry)).await,
            Ok(Claim { tasks, .. }) => {
                for task in tasks {
                    self.start(task, entry.clone(), executor);
                }
                self.in_flight.emptied(Instant::now() + ALONE).await;
            }
            Err(error) => {
                self.crashed.push_back((task_id, entry));
                self.back_off(error, shutdown).await;
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
