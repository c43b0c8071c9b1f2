//! Finding work: deliveries from Redis, or due tasks straight from PostgreSQL while Redis is away.

use std::collections::HashMap;
use std::time::Duration;

use pulse_core::Claimed;
use pulse_queue::{Acknowledger, Consumer, Delivery, Queue};
use pulse_store::{Claimer, Store, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::busy::Busy;
use crate::held::Held;
use crate::metrics::WorkerMetrics;
use crate::{Attempts, Pace, WorkerConfig, WorkerHealth};

/// How long one read waits for deliveries.
const BLOCK: Duration = Duration::from_secs(2);
/// Between two polls of PostgreSQL while Redis is away.
const POLL: Duration = Duration::from_millis(200);
/// Between two tries to reach Redis while it is away.
const REDIS_RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Intake {
    consumer: Consumer,
    acknowledger: Acknowledger,
    claimer: Claimer,
    held: Held,
    health: WorkerHealth,
    metrics: WorkerMetrics,
    pace: Pace,
    busy: Busy,
    redis_again_at: Option<Instant>,
}

impl Intake {
    pub(crate) fn new(
        config: &WorkerConfig,
        store: &Store,
        queue: &Queue,
        held: Held,
        health: WorkerHealth,
        metrics: WorkerMetrics,
        pace: Pace,
        busy: Busy,
    ) -> Self {
        Self {
            consumer: Consumer::new(queue, config.name.clone()),
            acknowledger: Acknowledger::new(queue, config.name.clone()),
            claimer: Claimer::new(store, config.name.clone(), config.lease),
            held,
            health,
            metrics,
            pace,
            busy,
            redis_again_at: None,
        }
    }

    /// Claims and starts tasks until `shutdown`. A claim that is under way is finished first.
    pub(crate) async fn run(&mut self, attempts: &Attempts, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            self.health.polled();
            self.metrics.held.set(i64::try_from(self.held.len()).unwrap_or(i64::MAX));
            let room = tokio::select! {
                room = self.held.room(self.pace.limit(), BLOCK) => room,
                () = shutdown.cancelled() => return,
            };
            if room == 0 {
                continue;
            }
            if self.redis_again_at.is_none_or(|at| at <= Instant::now()) {
                self.take_from_redis(room, attempts, shutdown).await;
            } else {
                self.take_from_postgres(room, attempts, shutdown).await;
            }
        }
    }

    async fn take_from_redis(&mut self, room: usize, attempts: &Attempts, shutdown: &CancellationToken) {
        let read = tokio::select! {
            read = self.consumer.read(room, BLOCK) => read,
            () = shutdown.cancelled() => return,
        };
        match read {
            Ok(deliveries) => {
                self.set_redis_away(false);
                if deliveries.is_empty() {
                    // Redis may answer and still not be told of new tasks: it refuses to grow beyond its memory.
                    self.claim_due(room, attempts, shutdown).await;
                } else {
                    self.claim_deliveries(deliveries, attempts, shutdown).await;
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
        if self.health.0.redis_away.swap(away, std::sync::atomic::Ordering::Relaxed) && !away {
            tracing::info!("reading from Redis again");
        }
    }

    async fn claim_deliveries(&mut self, deliveries: Vec<Delivery>, attempts: &Attempts, shutdown: &CancellationToken) {
        let mut entries: HashMap<Uuid, String> = HashMap::with_capacity(deliveries.len());
        let mut repeated: Vec<String> = Vec::new();
        for Delivery { entry_id, task_id } in deliveries {
            repeated.extend(entries.insert(task_id, entry_id));
        }
        let ids: Vec<Uuid> = entries.keys().copied().collect();
        let Some(claimed) = self.claim_patiently(&ids, shutdown).await else { return };
        for task in claimed {
            self.held.add(&task, entries.remove(&task.id));
            attempts.start(task);
        }
        // What could not be claimed is done, held by somebody, or due later: this delivery is of no use to anybody.
        repeated.extend(entries.into_values());
        if let Err(error) = self.acknowledger.acknowledge(&repeated).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot acknowledge deliveries that were of no use"
            );
        }
    }

    /// Claims `ids`, however long PostgreSQL is away: reading on instead would make a pile of deliveries that nobody
    /// works on. `None` at the shutdown: the deliveries stay pending and are reaped, and the sweep finds the tasks.
    async fn claim_patiently(&mut self, ids: &[Uuid], shutdown: &CancellationToken) -> Option<Vec<Claimed>> {
        while !shutdown.is_cancelled() {
            let claiming = self.busy.lane();
            let result = self.claimer.claim(ids).await;
            drop(claiming);
            match result {
                Ok(claimed) => return Some(claimed),
                Err(error) => wait_out(error, shutdown).await,
            }
            self.health.polled();
        }
        None
    }

    async fn take_from_postgres(&mut self, room: usize, attempts: &Attempts, shutdown: &CancellationToken) {
        let found = self.claim_due(room, attempts, shutdown).await;
        if found < room {
            // With jitter, so that many workers do not poll as one.
            pause(POLL.mul_f64(0.75 + 0.5 * rand::random::<f64>()), shutdown).await;
        }
    }

    /// Claims up to `room` due tasks without Redis; returns how many there were.
    async fn claim_due(&mut self, room: usize, attempts: &Attempts, shutdown: &CancellationToken) -> usize {
        match self.claimer.claim_due(room).await {
            Ok(claimed) => {
                let found = claimed.len();
                for task in claimed {
                    self.held.add(&task, None);
                    attempts.start(task);
                }
                found
            }
            Err(error) => {
                wait_out(error, shutdown).await;
                0
            }
        }
    }
}

async fn wait_out(error: StoreError, shutdown: &CancellationToken) {
    tracing::warn!(error = &error as &dyn std::error::Error, "cannot claim tasks");
    pause(POLL, shutdown).await;
}

async fn pause(duration: Duration, shutdown: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(duration) => {}
        () = shutdown.cancelled() => {}
    }
}
