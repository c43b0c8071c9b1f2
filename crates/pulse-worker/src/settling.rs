//! The settle loop: settles outcomes in batches. Outcomes that arrive during one statement go into the next.

use std::collections::HashSet;
use std::time::Duration;

use pulse_core::{FailureReason, RetryPolicy, TRACE};
use pulse_queue::{Acknowledger, EntryId, Queue};
use pulse_store::{Outcome, Settler, Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::attempt::FailurePolicy;
use crate::attempt_time::AttemptTime;
use crate::by_name::ByName;
use crate::config::{MAX_IN_FLIGHT_TASKS, WorkerConfig};
use crate::in_flight::{EndedAttempt, InFlight};
use crate::leased_task::LeasedTask;
use crate::locked_attempts::LockedAttempts;
use crate::metrics::WorkerMetrics;
use crate::processor::ProcessError;
use crate::settled::record_settled;

/// Delay between two attempts to settle while PostgreSQL is unavailable.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Time after a locked row for which settlements look for locked rows first, instead of waiting for one.
const CAREFUL_TIME: Duration = Duration::from_secs(1);
/// Maximum size of the properties in one statement, in bytes: PostgreSQL stores them within the statement time-out.
const MAX_STATEMENT_BYTES: usize = 8 * 1024 * 1024;

pub(crate) struct SettleLoop {
    settler: Settler,
    acknowledger: Acknowledger,
    in_flight: InFlight,
    metrics: WorkerMetrics,
    by_name: ByName,
    attempt_time: AttemptTime,
    retry: RetryPolicy,
    /// Attempts that another transaction keeps from being settled.
    locked: LockedAttempts,
    careful_until: Option<Instant>,
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
        by_name: ByName,
        attempt_time: AttemptTime,
    ) -> Self {
        Self {
            settler: Settler::new(store, format!("{}/settle", config.name)),
            acknowledger: Acknowledger::new(queue, config.name.clone()),
            in_flight,
            metrics,
            by_name,
            attempt_time,
            retry: config.retry.clone(),
            locked: LockedAttempts::default(),
            careful_until: None,
            retry_for: config.lease * 2,
        }
    }

    /// Settles until all senders are dropped or `stop` is cancelled. Settles what was sent before.
    pub(crate) async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<EndedAttempt>, stop: CancellationToken) {
        let mut attempts = Vec::new();
        loop {
            let received = tokio::select! {
                received = receiver.recv_many(&mut attempts, MAX_IN_FLIGHT_TASKS) => received,
                () = self.locked.retry_time() => {
                    self.settle_locked().await;
                    continue;
                }
                () = stop.cancelled(), if !receiver.is_closed() => {
                    receiver.close();
                    continue;
                }
            };
            if received == 0 {
                self.locked.release_all();
                return self.settle_locked().await;
            }
            self.settle_received(std::mem::take(&mut attempts)).await;
        }
    }

    async fn settle_received(&mut self, mut attempts: Vec<EndedAttempt>) {
        // Its lease was lost: this worker has claimed the task again.
        attempts.retain(|attempt| !attempt.task.is_superseded());
        let finished = self.settle(attempts).await;
        self.finish(finished).await;
    }

    /// Settles the attempts whose rows were locked, as far as they are not locked any more.
    async fn settle_locked(&mut self) {
        let attempts = self.locked.take();
        if attempts.is_empty() {
            return;
        }
        let mut batch = Batch::new(Instant::now());
        let result = self.settle_unlocked(attempts, &mut batch).await;
        if let Err((unsettled, error)) = result {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot settle tasks whose rows were locked");
            self.locked.extend(unsettled);
        }
        self.finish(batch.finished).await;
    }

    async fn finish(&mut self, finished: Vec<EndedAttempt>) {
        // Includes stale and failed settlements: another worker has the task, or the scheduler requeues it.
        let entries: Vec<EntryId> = finished.iter().filter_map(|attempt| attempt.task.entry_id.clone()).collect();
        if let Err(error) = self.acknowledger.acknowledge(&entries).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "cannot acknowledge deliveries: the scheduler reaps them later"
            );
        }
        self.in_flight.remove(finished);
    }

    /// Settles all, in groups, and returns them. A group that PostgreSQL rejects is split in halves, down to the
    /// settlement it rejects.
    ///
    /// Only that attempt fails. If PostgreSQL is unavailable, no attempt fails: the lease expires, and the task runs
    /// again.
    async fn settle(&mut self, attempts: Vec<EndedAttempt>) -> Vec<EndedAttempt> {
        let mut batch = Batch::new(Instant::now() + self.retry_for);
        let mut parts = groups(attempts);
        while let Some(part) = parts.pop() {
            match self.settle_part(part, &mut batch).await {
                Ok(()) => {}
                Err((mut first, error)) if first.len() > 1 && may_succeed_in_parts(&error) => {
                    let second = first.split_off(first.len() / 2);
                    parts.extend([second, first]);
                }
                Err((mut unsettled, error @ (StoreError::Refused { .. } | StoreError::Unexpected(_)))) => {
                    for attempt in &mut unsettled {
                        attempt.settlement.outcome = self.rejected(&attempt.task, &error);
                    }
                    if let Err((unsettled, error)) = self.settle_part(unsettled, &mut batch).await {
                        batch.give_up(unsettled, &error);
                    }
                }
                Err((unsettled, error)) => batch.give_up(unsettled, &error),
            }
        }
        batch.finished
    }

    /// Settles one group, and retries until the deadline if PostgreSQL is unavailable. Settling a settled task again
    /// changes nothing.
    ///
    /// # Errors
    /// The attempts that are not settled, with the cause.
    async fn settle_part(&mut self, mut part: Vec<EndedAttempt>, batch: &mut Batch) -> Result<(), Unsettled> {
        let mut is_first = true;
        loop {
            let is_careful = self.careful_until.is_some_and(|until| Instant::now() < until);
            let result =
                if is_careful { self.settle_unlocked(part, batch).await } else { self.settle_all(part, batch).await };
            let Err((unsettled, error)) = result else { return Ok(()) };
            part = unsettled;
            batch.outcome_unknown |= is_outcome_unknown(&error);
            let is_temporary = match error {
                StoreError::Locked(_) if !is_careful => {
                    self.careful_until = Some(Instant::now() + CAREFUL_TIME);
                    continue;
                }
                StoreError::Unavailable(_) | StoreError::TimedOut(_) | StoreError::Locked(_) => true,
                StoreError::StatementLimit(_) => part.len() == 1,
                StoreError::Refused { .. } | StoreError::Unexpected(_) => false,
            };
            if !is_temporary || Instant::now() >= batch.deadline {
                return Err((part, error));
            }
            if std::mem::take(&mut is_first) {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot settle tasks: trying again");
            }
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }

    /// Settles the attempts, and waits a short time for a locked row.
    async fn settle_all(&mut self, part: Vec<EndedAttempt>, batch: &mut Batch) -> Result<(), Unsettled> {
        let settlements = part.iter().map(|attempt| &attempt.settlement);
        let settled = self.settler.settle(settlements, self.attempt_time.take());
        let (settled, result) = settled.instrument(span_of(&part)).await;
        let rest = self.count_settled(part, settled, batch);
        match result {
            Ok(()) => {
                self.count_stale(&rest, batch);
                batch.finished.extend(rest);
                Ok(())
            }
            Err(error) => Err((rest, error)),
        }
    }

    /// Settles the attempts whose rows no other transaction has locked, and sets the others aside.
    async fn settle_unlocked(&mut self, part: Vec<EndedAttempt>, batch: &mut Batch) -> Result<(), Unsettled> {
        let settlements: Vec<_> = part.iter().map(|attempt| &attempt.settlement).collect();
        let result = self.settler.settle_unlocked(&settlements, self.attempt_time.take());
        let result = result.instrument(span_of(&part)).await;
        let (settled, locked) = match result {
            Ok(result) => result,
            Err(error) => return Err((part, error)),
        };
        if !locked.is_empty() {
            self.careful_until = Some(Instant::now() + CAREFUL_TIME);
        }
        let mut rest = self.count_settled(part, settled, batch);
        self.locked.extend(rest.extract_if(.., |attempt| locked.contains(&attempt.task.id)));
        self.count_stale(&rest, batch);
        batch.finished.extend(rest);
        Ok(())
    }

    /// Counts the settled attempts as finished, and returns the others.
    fn count_settled(&self, mut part: Vec<EndedAttempt>, settled: Vec<Uuid>, batch: &mut Batch) -> Vec<EndedAttempt> {
        let settled: HashSet<Uuid> = settled.into_iter().collect();
        for attempt in part.extract_if(.., |attempt| settled.contains(&attempt.task.id)) {
            record_settled(&self.metrics, &attempt);
            self.by_name.record(&attempt);
            batch.finished.push(attempt);
        }
        part
    }

    /// The outcome of an attempt whose effects PostgreSQL rejects.
    fn rejected(&self, task: &LeasedTask, error: &StoreError) -> Outcome {
        let error = ProcessError { reason: FailureReason::Constraint, message: error.to_string() };
        FailurePolicy::now(&self.retry).failed(task.attempt, task.max_attempts, error)
    }

    fn count_stale(&self, part: &[EndedAttempt], batch: &Batch) {
        // After an unknown outcome, a task may be missing because it was settled by that statement.
        for attempt in part.iter().filter(|_| !batch.outcome_unknown) {
            let LeasedTask { id, fencing_token, .. } = &*attempt.task;
            self.metrics.stale_settlements.inc();
            tracing::warn!(task_id = %id, fencing_token, "settlement rejected: the lease was lost");
        }
    }
}

/// The span of a statement that settles these attempts. Each belongs to another trace, so it is linked.
fn span_of(part: &[EndedAttempt]) -> Span {
    let span = tracing::debug_span!(target: TRACE, parent: None, "settle", tasks = part.len());
    for attempt in part {
        span.follows_from(&attempt.span);
    }
    span
}

/// Attempts that were not settled, with the cause.
type Unsettled = (Vec<EndedAttempt>, StoreError);

/// The attempts that were received together.
struct Batch {
    /// Until when settling is retried.
    deadline: Instant,
    /// The connection was lost during a statement, which may have been committed.
    outcome_unknown: bool,
    /// Settled, rejected as stale, or given up.
    finished: Vec<EndedAttempt>,
}

impl Batch {
    fn new(deadline: Instant) -> Self {
        Self { deadline, outcome_unknown: false, finished: Vec::new() }
    }

    fn give_up(&mut self, mut unsettled: Vec<EndedAttempt>, error: &StoreError) {
        for attempt in &unsettled {
            tracing::error!(
                error = error as &dyn std::error::Error,
                task_id = %attempt.task.id,
                "cannot settle the task: it runs again when its lease expires"
            );
        }
        self.finished.append(&mut unsettled);
    }
}

/// Splits attempts into groups with at most [`MAX_STATEMENT_BYTES`] of properties. A larger one is a group by itself.
fn groups(attempts: Vec<EndedAttempt>) -> Vec<Vec<EndedAttempt>> {
    let mut groups: Vec<Vec<EndedAttempt>> = Vec::new();
    let mut bytes = 0;
    for attempt in attempts {
        let size = match &attempt.settlement.outcome {
            Outcome::Completed(effects) | Outcome::Split { effects, .. } => {
                effects.iter().map(|effect| effect.properties.len()).sum()
            }
            Outcome::Orphaned | Outcome::Retry { .. } | Outcome::DeadLetter(_) | Outcome::Release(_) => 0,
        };
        bytes += size;
        match groups.last_mut() {
            Some(group) if bytes <= MAX_STATEMENT_BYTES => group.push(attempt),
            _ => {
                bytes = size;
                groups.push(vec![attempt]);
            }
        }
    }
    groups
}

/// Whether the statement may have been committed although it failed.
fn is_outcome_unknown(error: &StoreError) -> bool {
    match error {
        StoreError::Unavailable(_) | StoreError::TimedOut(_) | StoreError::Unexpected(_) => true,
        StoreError::Locked(_) | StoreError::StatementLimit(_) | StoreError::Refused { .. } => false,
    }
}

/// Whether a part of the group may succeed although the group failed.
fn may_succeed_in_parts(error: &StoreError) -> bool {
    match error {
        StoreError::Refused { .. } | StoreError::Unexpected(_) | StoreError::StatementLimit(_) => true,
        StoreError::Unavailable(_) | StoreError::TimedOut(_) | StoreError::Locked(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use pulse_core::ClaimedTask;
    use pulse_queue::QueueConfig;
    use pulse_store::{Effect, StoreConfig};

    use super::*;

    fn ended_attempt(in_flight: &InFlight, bytes: usize) -> EndedAttempt {
        let created_at = chrono::DateTime::UNIX_EPOCH;
        let task = ClaimedTask {
            id: Uuid::nil(),
            events: Vec::new(),
            bytes: 1,
            attempt: 1,
            max_attempts: 3,
            fencing_token: 1,
            created_at,
            traceparent: None,
            request_id: None,
        };
        let effect = Effect { event_id: 1, properties: "x".repeat(bytes) };
        let task = in_flight.add(&task, None);
        in_flight.end(&task, Outcome::Completed(vec![effect])).expect("the attempt is open")
    }

    #[test]
    fn groups_are_limited_by_bytes() {
        let half = MAX_STATEMENT_BYTES / 2;
        let sizes = [half, half, 1, MAX_STATEMENT_BYTES + 1, 1];
        let in_flight = InFlight::default();
        let attempts = sizes.map(|bytes| ended_attempt(&in_flight, bytes));
        let lengths: Vec<usize> = groups(attempts.into()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1, 1]);
    }

    #[tokio::test]
    async fn settle_loop_skips_superseded_attempts_and_ends_on_stop_while_senders_exist() {
        let url = "postgres://user@127.0.0.1:1/none".to_owned();
        let store = StoreConfig {
            url,
            url_again: None,
            ca: None,
            identity: None,
            max_connections: 1,
            application_name: "test".into(),
        };
        let queue =
            QueueConfig { url: "redis://127.0.0.1:1".into(), ca: None, identity: None, instance: "test".into() };
        let config = WorkerConfig {
            name: "test".into(),
            concurrency: 1,
            max_in_flight_bytes: 1,
            timeout: Duration::from_secs(1),
            retry: RetryPolicy { base_seconds: 2.0, cap: Duration::from_secs(60), jitter_percent: 0.0 },
            lease: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(1),
            continue_trace: |_, _| None,
        };
        let mut registry = pulse_metrics::Registry::default();
        let tasks = pulse_metrics::TaskMetrics::register(&mut registry);
        let metrics = WorkerMetrics::register(&mut registry, tasks);
        let store = Store::connect_lazy(&store).expect("a valid URL");
        let queue = Queue::connect_lazy(&queue).expect("a valid URL");
        let in_flight = InFlight::default();
        let settle_loop =
            SettleLoop::new(&config, &store, &queue, in_flight.clone(), metrics, ByName::default(), AttemptTime::new());
        let (sender, receiver) = mpsc::unbounded_channel();
        let superseded = ended_attempt(&in_flight, 1);
        drop(ended_attempt(&in_flight, 1));
        sender.send(superseded).expect("the receiver is open");
        let stop = CancellationToken::new();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), settle_loop.run(receiver, stop)).await.expect("ends");
        assert!(sender.is_closed());
    }
}
