//! Settling in micro-batches: what gathered while the last one was under way goes in one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use pulse_core::{FailureReason, RetryPolicy};
use pulse_queue::{Acknowledger, Queue};
use pulse_store::{Settlement, Settler, Store, StoreError, Verdict};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::held::{Held, HeldTask};
use crate::metrics::WorkerMetrics;
use crate::processor::ProcessError;
use crate::{MOST_HELD, WorkerConfig, attempt};

/// Between two tries while PostgreSQL is away.
const RETRY: Duration = Duration::from_millis(200);

pub(crate) struct Settling {
    settler: Settler,
    acknowledger: Acknowledger,
    held: Held,
    metrics: WorkerMetrics,
    retry: RetryPolicy,
    /// After this long without PostgreSQL every lease of ours has ended, and somebody else has the tasks.
    patience: Duration,
}

impl Settling {
    pub(crate) fn new(config: &WorkerConfig, store: &Store, queue: &Queue, held: Held, metrics: WorkerMetrics) -> Self {
        Self {
            settler: Settler::new(store, format!("{}/settle", config.name)),
            acknowledger: Acknowledger::new(queue, config.name.clone()),
            held,
            metrics,
            retry: config.retry.clone(),
            patience: config.lease * 2,
        }
    }

    /// Settles until the last sender is gone and everything it sent is settled.
    pub(crate) async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Settlement>) {
        let mut settlements = Vec::new();
        while receiver.recv_many(&mut settlements, MOST_HELD).await > 0 {
            // The second verdict on a task comes from a step that was given up before, or that was released.
            let mut seen = HashSet::new();
            settlements.retain(|settlement| {
                self.held.get(settlement.task_id, settlement.lease_no).is_some() && seen.insert(settlement.task_id)
            });
            let held: HashMap<Uuid, HeldTask> = settlements
                .iter()
                .filter_map(|settlement| {
                    Some((settlement.task_id, self.held.get(settlement.task_id, settlement.lease_no)?))
                })
                .collect();
            self.settle(&settlements, &held).await;
            // Also what was stale: somebody else has it, or had it.
            let entries: Vec<String> = held.values().filter_map(|task| task.entry_id.clone()).collect();
            if let Err(error) = self.acknowledger.acknowledge(&entries).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "cannot acknowledge: the entries are reaped later"
                );
            }
            self.held.remove(held.into_keys());
            settlements.clear();
        }
    }

    /// Settles all, in one go or, if PostgreSQL refuses that, in halves, down to the one that it refuses.
    async fn settle(&mut self, settlements: &[Settlement], held: &HashMap<Uuid, HeldTask>) {
        let mut parts = vec![settlements.to_vec()];
        while let Some(part) = parts.pop() {
            match self.settle_part(&part, held).await {
                Ok(()) => {}
                Err(StoreError::Refused { .. }) if part.len() > 1 => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right.to_vec(), left.to_vec()]);
                }
                Err(error) => {
                    // Alone and refused: the attempt failed after all.
                    for settlement in part {
                        let failed = self.refused(&settlement, held, &error);
                        if let Err(error) = self.settle_part(std::slice::from_ref(&failed), held).await {
                            tracing::error!(
                                error = &error as &dyn std::error::Error,
                                task_id = %failed.task_id,
                                "cannot settle: the lease ends, and the task runs again"
                            );
                        }
                    }
                }
            }
        }
    }

    /// Settles one batch, waiting out an absent PostgreSQL. Settling again what was settled changes nothing.
    async fn settle_part(&mut self, part: &[Settlement], held: &HashMap<Uuid, HeldTask>) -> Result<(), StoreError> {
        let started = tokio::time::Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            match self.settler.settle(part).await {
                Ok(settled) => {
                    self.count(part, &settled.into_iter().collect(), held, tries == 1);
                    return Ok(());
                }
                Err(error @ (StoreError::Unavailable(_) | StoreError::Locked(_)))
                    if started.elapsed() < self.patience =>
                {
                    if tries == 1 {
                        tracing::warn!(error = &error as &dyn std::error::Error, "cannot settle: trying again");
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn refused(&self, settlement: &Settlement, held: &HashMap<Uuid, HeldTask>, error: &StoreError) -> Settlement {
        let (attempt, max_attempts) =
            held.get(&settlement.task_id).map_or((1, 1), |task| (task.attempt, task.max_attempts));
        let error = ProcessError { reason: FailureReason::Constraint, message: error.to_string() };
        let verdict = attempt::failed(attempt, max_attempts, error, &self.retry, chrono::Utc::now(), rand::random());
        Settlement { verdict, ..settlement.clone() }
    }

    fn count(&self, part: &[Settlement], settled: &HashSet<Uuid>, held: &HashMap<Uuid, HeldTask>, first_try: bool) {
        for Settlement { task_id, lease_no, verdict, .. } in part {
            if !settled.contains(task_id) {
                // After an unknown outcome, "not found" may be our own success.
                if first_try {
                    self.metrics.stale_settles.inc();
                    tracing::warn!(%task_id, lease_no, "settlement refused: the lease was lost");
                }
                continue;
            }
            match verdict {
                Verdict::Processed(_) => {
                    self.metrics.count_settled("processed");
                    if let Some(task) = held.get(task_id) {
                        let age = (chrono::Utc::now() - task.created_at).as_seconds_f64().max(0.0);
                        self.metrics.event_age_seconds.observe(age);
                    }
                }
                Verdict::Gone => self.metrics.count_settled("gone"),
                Verdict::Release => self.metrics.count_settled("released"),
                Verdict::Retry { delay, attempt } => {
                    self.metrics.count_settled("retry");
                    self.metrics.count_retry(attempt.reason);
                    let (reason, error) = (attempt.reason.as_str(), &attempt.error);
                    tracing::warn!(%task_id, attempt = attempt.attempt, reason, error, ?delay, "attempt failed: trying again");
                }
                Verdict::Bury(attempt) => {
                    self.metrics.count_settled("buried");
                    let (reason, error) = (attempt.reason.as_str(), &attempt.error);
                    tracing::error!(%task_id, attempt = attempt.attempt, reason, error, "task buried: see `pulse tasks list`");
                }
            }
        }
    }
}
