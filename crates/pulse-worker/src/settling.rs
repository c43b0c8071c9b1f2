//! Settling in micro-batches: what gathered while the last one was under way goes in one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use pulse_core::{FailureReason, RetryPolicy};
use pulse_queue::{Acknowledger, Queue};
use pulse_store::{Outcome, Settlement, Settler, Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::busy::Busy;
use crate::in_flight::{InFlight, InFlightTask};
use crate::metrics::WorkerMetrics;
use crate::processor::ProcessError;
use crate::{MAX_IN_FLIGHT_TASKS, WorkerConfig, attempt};

/// Between two tries while PostgreSQL is away.
const RETRY: Duration = Duration::from_millis(200);
/// The most bytes of properties in one statement: PostgreSQL takes them within its time-out.
const MAX_STATEMENT_BYTES: usize = 8 * 1024 * 1024;

pub(crate) struct Settling {
    settler: Settler,
    acknowledger: Acknowledger,
    in_flight: InFlight,
    metrics: WorkerMetrics,
    busy: Busy,
    retry: RetryPolicy,
    /// After this long without PostgreSQL every lease of ours has ended, and somebody else has the tasks.
    patience: Duration,
}

impl Settling {
    pub(crate) fn new(
        config: &WorkerConfig,
        store: &Store,
        queue: &Queue,
        in_flight: InFlight,
        metrics: WorkerMetrics,
        busy: Busy,
    ) -> Self {
        Self {
            settler: Settler::new(store, format!("{}/settle", config.name)),
            acknowledger: Acknowledger::new(queue, config.name.clone()),
            in_flight,
            metrics,
            busy,
            retry: config.retry.clone(),
            patience: config.lease * 2,
        }
    }

    /// Settles until the last sender is gone or `stop`, and then what was sent before.
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
        // What is not in_flight any more was forgotten, or is ours anew under another lease.
        let mut in_flight: HashMap<Uuid, InFlightTask> = HashMap::with_capacity(settlements.len());
        settlements.retain(|settlement| {
            let Some(task) = self.in_flight.get(settlement.task_id, settlement.fencing_token) else { return false };
            in_flight.insert(settlement.task_id, task).is_none()
        });
        self.settle(settlements, &in_flight).await;
        // Also what was stale or could not be settled: somebody else has it, or the sweep rings again.
        let entries: Vec<String> = in_flight.values().filter_map(|task| task.entry_id.clone()).collect();
        let acknowledging = self.busy.statement();
        if let Err(error) = self.acknowledger.acknowledge(&entries).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot acknowledge: the entries are reaped later"
            );
        }
        drop(acknowledging);
        self.in_flight.remove(in_flight.into_iter().map(|(id, task)| (id, task.fencing_token)));
    }

    /// Settles all, in groups or, if PostgreSQL refuses one, in halves, down to the one that it refuses.
    ///
    /// Only that one has failed. What an absent PostgreSQL kept us from settling is no failure of the task: its lease
    /// ends, and it runs again.
    async fn settle(&mut self, settlements: Vec<Settlement>, in_flight: &HashMap<Uuid, InFlightTask>) {
        let mut patience = SettleDeadline { until: Instant::now() + self.patience, outcome_unknown: false };
        let mut parts = groups(settlements);
        while let Some(part) = parts.pop() {
            match self.settle_part(part, in_flight, &mut patience).await {
                Ok(()) => {}
                Err((mut left, error)) if left.len() > 1 && is_about_the_values(&error) => {
                    let right = left.split_off(left.len() / 2);
                    parts.extend([right, left]);
                }
                Err((left, error @ (StoreError::Refused { .. } | StoreError::Unexpected(_)))) => {
                    let failed = left.iter().map(|settlement| self.refused(settlement, in_flight, &error)).collect();
                    if let Err((left, error)) = self.settle_part(failed, in_flight, &mut patience).await {
                        forget(&left, &error);
                    }
                }
                Err((left, error)) => forget(&left, &error),
            }
        }
    }

    /// Settles one group, waiting out an absent PostgreSQL. Settling again what was settled changes nothing.
    ///
    /// # Errors
    /// What is not settled, and why.
    async fn settle_part(
        &mut self,
        mut part: Vec<Settlement>,
        in_flight: &HashMap<Uuid, InFlightTask>,
        patience: &mut SettleDeadline,
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
                self.count_stale(&part, patience);
                return Ok(());
            };
            patience.outcome_unknown |= matches!(error, StoreError::Unavailable(_) | StoreError::Unexpected(_));
            let may_pass = match error {
                StoreError::Unavailable(_) | StoreError::Locked(_) => true,
                StoreError::StatementLimit(_) => part.len() == 1,
                StoreError::Refused { .. } | StoreError::Unexpected(_) => false,
            };
            if !may_pass || Instant::now() >= patience.until {
                return Err((part, error));
            }
            if std::mem::take(&mut is_first) {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot settle: trying again");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn refused(
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

    fn count_stale(&self, part: &[Settlement], patience: &SettleDeadline) {
        for Settlement { task_id, fencing_token, .. } in part {
            // After an unknown outcome, "not found" may be our own success.
            if !patience.outcome_unknown {
                self.metrics.stale_settlements.inc();
                tracing::warn!(%task_id, fencing_token, "settlement refused: the lease was lost");
            }
        }
    }

    fn count_settled(&self, settlement: &Settlement, in_flight: &HashMap<Uuid, InFlightTask>) {
        let Settlement { task_id, outcome, .. } = settlement;
        match outcome {
            Outcome::Completed(_) => {
                self.metrics.count_settled("completed");
                if let Some(task) = in_flight.get(task_id) {
                    let age = (chrono::Utc::now() - task.created_at).as_seconds_f64().max(0.0);
                    self.metrics.event_age_seconds.observe(age);
                }
            }
            Outcome::Orphaned => self.metrics.count_settled("orphaned"),
            Outcome::Release => self.metrics.count_settled("released"),
            Outcome::Retry { delay, attempt } => {
                self.metrics.count_settled("retried");
                self.metrics.count_retry(attempt.reason);
                let (reason, error) = (attempt.reason.as_str(), &attempt.error);
                tracing::warn!(%task_id, attempt = attempt.attempt, reason, error, ?delay, "attempt failed: trying again");
            }
            Outcome::DeadLetter(attempt) => {
                self.metrics.count_settled("dead");
                let (reason, error) = (attempt.reason.as_str(), &attempt.error);
                tracing::error!(%task_id, attempt = attempt.attempt, reason, error, "task buried: see `pulse tasks list`");
            }
        }
    }
}

/// How long to try, together for all that was received together.
struct SettleDeadline {
    until: Instant,
    /// A statement may have been committed without our knowing.
    outcome_unknown: bool,
}

/// Cuts settlements into groups of at most [`MAX_STATEMENT_BYTES`] of properties, or of one settlement.
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

/// Whether a part of a group may succeed where the group fails.
fn is_about_the_values(error: &StoreError) -> bool {
    match error {
        StoreError::Refused { .. } | StoreError::Unexpected(_) | StoreError::StatementLimit(_) => true,
        StoreError::Unavailable(_) | StoreError::Locked(_) => false,
    }
}

fn forget(settlements: &[Settlement], error: &StoreError) {
    for Settlement { task_id, .. } in settlements {
        tracing::error!(
            error = error as &dyn std::error::Error,
            %task_id,
            "cannot settle: the lease ends, and the task runs again"
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
    fn a_group_holds_no_more_bytes_than_one_statement_should() {
        let half = MAX_STATEMENT_BYTES / 2;
        let sizes = [half, half, 1, MAX_STATEMENT_BYTES + 1, 1];
        let lengths: Vec<usize> = groups(sizes.map(settlement).into()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1, 1]);
    }

    #[tokio::test]
    async fn it_ends_when_told_to_though_somebody_could_still_send() {
        let url = "postgres://nobody@127.0.0.1:1/none".to_owned();
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
        let metrics = WorkerMetrics::register(
            &mut prometheus_client::registry::Registry::default(),
            <_>::default(),
            <_>::default(),
        );
        let store = Store::connect_lazy(&store).expect("a valid URL");
        let queue = Queue::connect_lazy(&queue).expect("a valid URL");
        let settling = Settling::new(&config, &store, &queue, InFlight::default(), metrics, Busy::new(1));
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(settlement(1)).expect("the receiver is open");
        let stop = CancellationToken::new();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), settling.run(receiver, stop)).await.expect("ends");
        assert!(sender.is_closed());
    }
}
