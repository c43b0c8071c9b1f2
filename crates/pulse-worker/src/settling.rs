//! The settle loop: settles outcomes in batches. Outcomes that arrive during one statement go into the next.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use pulse_core::{AttemptOutcome, FailureReason, RetryPolicy};
use pulse_queue::{Acknowledger, Queue};
use pulse_store::{Outcome, Settlement, Settler, Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::busy::BusyTime;
use crate::in_flight::{InFlight, InFlightTask};
use crate::metrics::WorkerMetrics;
use crate::processor::ProcessError;
use crate::{MAX_IN_FLIGHT_TASKS, WorkerConfig, attempt};

/// Delay between two attempts to settle while PostgreSQL is unavailable.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Maximum size of the properties in one statement, in bytes: PostgreSQL stores them within the statement time-out.
const MAX_STATEMENT_BYTES: usize = 8 * 1024 * 1024;

pub(crate) struct SettleLoop {
    settler: Settler,
    acknowledger: Acknowledger,
    in_flight: InFlight,
    metrics: WorkerMetrics,
    busy: BusyTime,
    retry: RetryPolicy,
    /// Time to retry. After two leases without PostgreSQL, every lease has expired and other workers have the tasks.
    retry_for: Duration,
}

impl SettleLoop {
    pub(crate) fn new(
        config: &WorkerConfig,
        store: &Store,
        queue: &Queue,
        in_flight: InFlight,
        metrics: WorkerMetrics,
        busy: BusyTime,
    ) -> Self {
        Self {
            settler: Settler::new(store, format!("{}/settle", config.name)),
            acknowledger: Acknowledger::new(queue, config.name.clone()),
            in_flight,
            metrics,
            busy,
            retry: config.retry.clone(),
            retry_for: config.lease * 2,
        }
    }

    /// Settles until all senders are dropped or `stop` is cancelled. Settles what was sent before.
    pub(crate) async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Settlement>, stop: CancellationToken) {
        let mut settlements = Vec::new();
        loop {
            let received = tokio::select! {
                received = receiver.recv_many(&mut settlements, MAX_IN_FLIGHT_TASKS) => received,
                () = stop.cancelled(), if !receiver.is_closed() => {
                    receiver.close();
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            self.settle_received(std::mem::take(&mut settlements)).await;
        }
    }

    async fn settle_received(&mut self, mut settlements: Vec<Settlement>) {
        // A task that is not in flight was removed, or was claimed again with a newer fencing token.
        let mut in_flight: HashMap<Uuid, InFlightTask> = HashMap::with_capacity(settlements.len());
        settlements.retain(|settlement| {
            let Some(task) = self.in_flight.get(settlement.task_id, settlement.fencing_token) else { return false };
            in_flight.insert(settlement.task_id, task).is_none()
        });
        self.settle(settlements, &in_flight).await;
        // Includes stale and failed settlements: another worker has the task, or the scheduler requeues it.
        let entries: Vec<String> = in_flight.values().filter_map(|task| task.entry_id.clone()).collect();
        let acknowledging = self.busy.statement();
        if let Err(error) = self.acknowledger.acknowledge(&entries).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot acknowledge deliveries: the scheduler reaps them later"
            );
        }
        drop(acknowledging);
        self.in_flight.remove(in_flight.into_iter().map(|(id, task)| (id, task.fencing_token)));
    }

    /// Settles all, in groups. A group that PostgreSQL rejects is split in halves, down to the settlement it rejects.
    ///
    /// Only that attempt fails. If PostgreSQL is unavailable, no attempt fails: the lease expires, and the task runs
    /// again.
    async fn settle(&mut self, settlements: Vec<Settlement>, in_flight: &HashMap<Uuid, InFlightTask>) {
        let mut deadline = SettleDeadline { at: Instant::now() + self.retry_for, outcome_unknown: false };
        let mut parts = groups(settlements);
        while let Some(part) = parts.pop() {
            match self.settle_part(part, in_flight, &mut deadline).await {
                Ok(()) => {}
                Err((mut first, error)) if first.len() > 1 && may_succeed_in_parts(&error) => {
                    let second = first.split_off(first.len() / 2);
                    parts.extend([second, first]);
                }
                Err((unsettled, error @ (StoreError::Refused { .. } | StoreError::Unexpected(_)))) => {
                    let failed =
                        unsettled.iter().map(|settlement| self.rejected(settlement, in_flight, &error)).collect();
                    if let Err((unsettled, error)) = self.settle_part(failed, in_flight, &mut deadline).await {
                        log_unsettled(&unsettled, &error);
                    }
                }
                Err((unsettled, error)) => log_unsettled(&unsettled, &error),
            }
        }
    }

    /// Settles one group, and retries until the deadline if PostgreSQL is unavailable. Settling a settled task again
    /// changes nothing.
    ///
    /// # Errors
    /// The settlements that are not settled, with the cause.
    async fn settle_part(
        &mut self,
        mut part: Vec<Settlement>,
        in_flight: &HashMap<Uuid, InFlightTask>,
        deadline: &mut SettleDeadline,
    ) -> Result<(), (Vec<Settlement>, StoreError)> {
        let mut is_first = true;
        loop {
            let settling = self.busy.statement();
            let (settled, result) = self.settler.settle(&part, self.busy.take()).await;
            drop(settling);
            let settled: HashSet<Uuid> = settled.into_iter().collect();
            for settlement in part.extract_if(.., |settlement| settled.contains(&settlement.task_id)) {
                self.count_settled(&settlement, in_flight);
            }
            let Err(error) = result else {
                self.count_stale(&part, deadline);
                return Ok(());
            };
            deadline.outcome_unknown |=
                matches!(error, StoreError::Unavailable(_) | StoreError::TimedOut(_) | StoreError::Unexpected(_));
            let is_temporary = match error {
                StoreError::Unavailable(_) | StoreError::TimedOut(_) | StoreError::Locked(_) => true,
                StoreError::StatementLimit(_) => part.len() == 1,
                StoreError::Refused { .. } | StoreError::Unexpected(_) => false,
            };
            if !is_temporary || Instant::now() >= deadline.at {
                return Err((part, error));
            }
            if std::mem::take(&mut is_first) {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot settle tasks: trying again");
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    fn rejected(
        &self,
        settlement: &Settlement,
        in_flight: &HashMap<Uuid, InFlightTask>,
        error: &StoreError,
    ) -> Settlement {
        let (attempt, max_attempts) =
            in_flight.get(&settlement.task_id).map_or((1, 1), |task| (task.attempt, task.max_attempts));
        let error = ProcessError { reason: FailureReason::Constraint, message: error.to_string() };
        let outcome = attempt::failed(attempt, max_attempts, error, &self.retry, chrono::Utc::now(), rand::random());
        Settlement { outcome, ..settlement.clone() }
    }

    fn count_stale(&self, part: &[Settlement], deadline: &SettleDeadline) {
        for Settlement { task_id, fencing_token, .. } in part {
            // After an unknown outcome, the task may be missing because it was settled by that statement.
            if !deadline.outcome_unknown {
                self.metrics.stale_settlements.inc();
                tracing::warn!(%task_id, fencing_token, "settlement rejected: the lease was lost");
            }
        }
    }

    fn count_settled(&self, settlement: &Settlement, in_flight: &HashMap<Uuid, InFlightTask>) {
        let Settlement { task_id, outcome, .. } = settlement;
        match outcome {
            Outcome::Completed(_) => {
                self.metrics.count_settled(AttemptOutcome::Completed);
                if let Some(task) = in_flight.get(task_id) {
                    let age = (chrono::Utc::now() - task.created_at).as_seconds_f64().max(0.0);
                    self.metrics.event_age_seconds.observe(age);
                }
            }
            Outcome::Orphaned => self.metrics.count_settled(AttemptOutcome::Orphaned),
            Outcome::Release => self.metrics.count_settled(AttemptOutcome::Released),
            Outcome::Retry { delay, attempt } => {
                self.metrics.count_settled(AttemptOutcome::Retried);
                self.metrics.count_retry(attempt.reason);
                let (reason, error) = (attempt.reason.as_str(), &attempt.error);
                tracing::warn!(
                    %task_id,
                    attempt = attempt.attempt,
                    reason,
                    error,
                    ?delay,
                    "attempt failed: the task is retried"
                );
            }
            Outcome::DeadLetter(attempt) => {
                self.metrics.count_settled(AttemptOutcome::Dead);
                let (reason, error) = (attempt.reason.as_str(), &attempt.error);
                tracing::error!(
                    %task_id,
                    attempt = attempt.attempt,
                    reason,
                    error,
                    "task dead-lettered: see `pulse tasks list`, then retry or cancel it"
                );
            }
        }
    }
}

/// The deadline of all settlements that were received together.
struct SettleDeadline {
    at: Instant,
    /// The connection was lost during a statement, which may have been committed.
    outcome_unknown: bool,
}

/// Splits settlements into groups with at most [`MAX_STATEMENT_BYTES`] of properties. A larger settlement is a group by
/// itself.
fn groups(settlements: Vec<Settlement>) -> Vec<Vec<Settlement>> {
    let mut groups: Vec<Vec<Settlement>> = Vec::new();
    let mut bytes = 0;
    for settlement in settlements {
        let size = match &settlement.outcome {
            Outcome::Completed(effects) => effects.iter().map(|effect| effect.properties.len()).sum(),
            Outcome::Orphaned | Outcome::Retry { .. } | Outcome::DeadLetter(_) | Outcome::Release => 0,
        };
        bytes += size;
        match groups.last_mut() {
            Some(group) if bytes <= MAX_STATEMENT_BYTES => group.push(settlement),
            _ => {
                bytes = size;
                groups.push(vec![settlement]);
            }
        }
    }
    groups
}

/// Whether a part of the group may succeed although the group failed.
fn may_succeed_in_parts(error: &StoreError) -> bool {
    match error {
        StoreError::Refused { .. } | StoreError::Unexpected(_) | StoreError::StatementLimit(_) => true,
        StoreError::Unavailable(_) | StoreError::TimedOut(_) | StoreError::Locked(_) => false,
    }
}

fn log_unsettled(settlements: &[Settlement], error: &StoreError) {
    for Settlement { task_id, .. } in settlements {
        tracing::error!(
            error = error as &dyn std::error::Error,
            %task_id,
            "cannot settle the task: it runs again when its lease expires"
        );
    }
}

#[cfg(test)]
mod tests {
    use pulse_queue::QueueConfig;
    use pulse_store::{Effect, StoreConfig};

    use super::*;

    fn settlement(bytes: usize) -> Settlement {
        let effect = Effect { event_id: 1, created_at: chrono::DateTime::UNIX_EPOCH, properties: "x".repeat(bytes) };
        let outcome = Outcome::Completed(vec![effect]);
        Settlement { task_id: Uuid::nil(), fencing_token: 1, outcome }
    }

    #[test]
    fn groups_are_limited_by_bytes() {
        let half = MAX_STATEMENT_BYTES / 2;
        let sizes = [half, half, 1, MAX_STATEMENT_BYTES + 1, 1];
        let lengths: Vec<usize> = groups(sizes.map(settlement).into()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1, 1]);
    }

    #[tokio::test]
    async fn settle_loop_ends_on_stop_while_senders_exist() {
        let url = "postgres://user@127.0.0.1:1/none".to_owned();
        let store = StoreConfig { url, ca: None, max_connections: 1, application_name: "test".into() };
        let queue = QueueConfig { url: "redis://127.0.0.1:1".into(), ca: None, instance: "test".into() };
        let config = WorkerConfig {
            name: "test".into(),
            concurrency: 1,
            timeout: Duration::from_secs(1),
            retry: RetryPolicy { base_seconds: 2.0, cap: Duration::from_secs(60), jitter_percent: 0.0 },
            lease: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(1),
            link_trace: |_, _| {},
        };
        let mut registry = pulse_metrics::Registry::default();
        let tasks = pulse_metrics::TaskMetrics::register(&mut registry);
        let metrics = WorkerMetrics::register(&mut registry, tasks);
        let store = Store::connect_lazy(&store).expect("a valid URL");
        let queue = Queue::connect_lazy(&queue).expect("a valid URL");
        let settle_loop = SettleLoop::new(&config, &store, &queue, InFlight::default(), metrics, BusyTime::new(1));
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(settlement(1)).expect("the receiver is open");
        let stop = CancellationToken::new();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), settle_loop.run(receiver, stop)).await.expect("ends");
        assert!(sender.is_closed());
    }
}
