//! Settling in micro-batches: what gathered while the last one was under way goes in one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use pulse_core::{FailureReason, RetryPolicy};
use pulse_queue::{Acknowledger, Queue};
use pulse_store::{Settlement, Settler, Store, StoreError, Verdict};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::busy::Busy;
use crate::held::{Held, HeldTask};
use crate::metrics::WorkerMetrics;
use crate::processor::ProcessError;
use crate::{MOST_HELD, WorkerConfig, attempt};

/// Between two tries while PostgreSQL is away.
const RETRY: Duration = Duration::from_millis(200);
/// The most bytes of properties in one statement: PostgreSQL takes them within its time-out.
const MOST_BYTES: usize = 8 * 1024 * 1024;

pub(crate) struct Settling {
    settler: Settler,
    acknowledger: Acknowledger,
    held: Held,
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
        held: Held,
        metrics: WorkerMetrics,
        busy: Busy,
    ) -> Self {
        Self {
            settler: Settler::new(store, format!("{}/settle", config.name)),
            acknowledger: Acknowledger::new(queue, config.name.clone()),
            held,
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
                received = receiver.recv_many(&mut settlements, MOST_HELD) => received,
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
        // What is not held any more was forgotten, or is ours anew under another lease.
        let mut held: HashMap<Uuid, HeldTask> = HashMap::with_capacity(settlements.len());
        settlements.retain(|settlement| {
            let Some(task) = self.held.get(settlement.task_id, settlement.lease_no) else { return false };
            held.insert(settlement.task_id, task).is_none()
        });
        self.settle(settlements, &held).await;
        // Also what was stale or could not be settled: somebody else has it, or the sweep rings again.
        let entries: Vec<String> = held.values().filter_map(|task| task.entry_id.clone()).collect();
        let acknowledging = self.busy.lane();
        if let Err(error) = self.acknowledger.acknowledge(&entries).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot acknowledge: the entries are reaped later"
            );
        }
        drop(acknowledging);
        self.held.remove(held.into_iter().map(|(id, task)| (id, task.lease_no)));
    }

    /// Settles all, in groups or, if PostgreSQL refuses one, in halves, down to the one that it refuses.
    ///
    /// Only that one has failed. What an absent PostgreSQL kept us from settling is no failure of the task: its lease
    /// ends, and it runs again.
    async fn settle(&mut self, settlements: Vec<Settlement>, held: &HashMap<Uuid, HeldTask>) {
        let mut patience = Patience { until: Instant::now() + self.patience, outcome_unknown: false };
        let mut parts = groups(settlements);
        while let Some(part) = parts.pop() {
            match self.settle_part(part, held, &mut patience).await {
                Ok(()) => {}
                Err((mut left, error)) if left.len() > 1 && is_about_the_values(&error) => {
                    let right = left.split_off(left.len() / 2);
                    parts.extend([right, left]);
                }
                Err((left, error @ (StoreError::Refused { .. } | StoreError::Unexpected(_)))) => {
                    let failed = left.iter().map(|settlement| self.refused(settlement, held, &error)).collect();
                    if let Err((left, error)) = self.settle_part(failed, held, &mut patience).await {
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
        held: &HashMap<Uuid, HeldTask>,
        patience: &mut Patience,
    ) -> Result<(), (Vec<Settlement>, StoreError)> {
        let mut is_first = true;
        loop {
            let settling = self.busy.lane();
            let (settled, result) = self.settler.settle(&part, self.busy.take()).await;
            drop(settling);
            let settled: HashSet<Uuid> = settled.into_iter().collect();
            for settlement in part.extract_if(.., |settlement| settled.contains(&settlement.task_id)) {
                self.count_settled(&settlement, held);
            }
            let Err(error) = result else {
                self.count_stale(&part, patience);
                return Ok(());
            };
            patience.outcome_unknown |= matches!(error, StoreError::Unavailable(_) | StoreError::Unexpected(_));
            let may_pass = match error {
                StoreError::Unavailable(_) | StoreError::Locked(_) => true,
                StoreError::TooMuch(_) => part.len() == 1,
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

    fn refused(&self, settlement: &Settlement, held: &HashMap<Uuid, HeldTask>, error: &StoreError) -> Settlement {
        let (attempt, max_attempts) =
            held.get(&settlement.task_id).map_or((1, 1), |task| (task.attempt, task.max_attempts));
        let error = ProcessError { reason: FailureReason::Constraint, message: error.to_string() };
        let verdict = attempt::failed(attempt, max_attempts, error, &self.retry, chrono::Utc::now(), rand::random());
        Settlement { verdict, ..settlement.clone() }
    }

    fn count_stale(&self, part: &[Settlement], patience: &Patience) {
        for Settlement { task_id, lease_no, .. } in part {
            // After an unknown outcome, "not found" may be our own success.
            if !patience.outcome_unknown {
                self.metrics.stale_settles.inc();
                tracing::warn!(%task_id, lease_no, "settlement refused: the lease was lost");
            }
        }
    }

    fn count_settled(&self, settlement: &Settlement, held: &HashMap<Uuid, HeldTask>) {
        let Settlement { task_id, verdict, .. } = settlement;
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

/// How long to try, together for all that was received together.
struct Patience {
    until: Instant,
    /// A statement may have been committed without our knowing.
    outcome_unknown: bool,
}

/// Cuts settlements into groups of at most [`MOST_BYTES`] of properties, or of one settlement.
fn groups(settlements: Vec<Settlement>) -> Vec<Vec<Settlement>> {
    let mut groups: Vec<Vec<Settlement>> = Vec::new();
    let mut bytes = 0;
    for settlement in settlements {
        let size = match &settlement.verdict {
            Verdict::Processed(effects) => effects.iter().map(|effect| effect.properties.len()).sum(),
            Verdict::Gone | Verdict::Retry { .. } | Verdict::Bury(_) | Verdict::Release => 0,
        };
        bytes += size;
        match groups.last_mut() {
            Some(group) if bytes <= MOST_BYTES => group.push(settlement),
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
        StoreError::Refused { .. } | StoreError::Unexpected(_) | StoreError::TooMuch(_) => true,
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
        let verdict = Verdict::Processed(vec![effect]);
        Settlement { task_id: Uuid::nil(), lease_no: 1, verdict }
    }

    #[test]
    fn a_group_holds_no_more_bytes_than_one_statement_should() {
        let half = MOST_BYTES / 2;
        let sizes = [half, half, 1, MOST_BYTES + 1, 1];
        let lengths: Vec<usize> = groups(sizes.map(settlement).into()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1, 1]);
    }

    #[tokio::test]
    async fn it_ends_when_told_to_though_somebody_could_still_send() {
        let url = "postgres://nobody@127.0.0.1:1/none".to_owned();
        let store = StoreConfig { url, ca: None, max_connections: 1, application_name: "test".into() };
        let queue = QueueConfig { url: "redis://127.0.0.1:1".into(), ca: None, ingest: "test".into() };
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
        let settling = Settling::new(&config, &store, &queue, Held::default(), metrics, Busy::new(1));
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(settlement(1)).expect("the receiver is open");
        let stop = CancellationToken::new();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), settling.run(receiver, stop)).await.expect("ends");
        assert!(sender.is_closed());
    }
}
