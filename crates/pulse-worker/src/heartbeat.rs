//! The heartbeat: extends leases, resets the idle time of deliveries in Redis, fails stuck attempts, and reports.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pulse_queue::{Acknowledger, EntryId};
use pulse_store::{Child, ChildState, Outcome, Store};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::attempt::{self, FailurePolicy};
use crate::config::WorkerConfig;
use crate::health::WorkerHealth;
use crate::in_flight::{EndedAttempt, InFlight};
use crate::leased_task::LeasedTask;
use crate::reporter::Reporter;

/// Time for which a processor may exceed the task time-out before it counts as stuck.
const STUCK_GRACE: Duration = Duration::from_secs(1);

pub(crate) struct Heartbeat {
    pub(crate) store: Store,
    pub(crate) acknowledger: Acknowledger,
    pub(crate) in_flight: InFlight,
    pub(crate) ended_attempts: mpsc::UnboundedSender<EndedAttempt>,
    pub(crate) health: WorkerHealth,
    pub(crate) reporter: Reporter,
    pub(crate) config: WorkerConfig,
}

impl Heartbeat {
    /// Runs until it is aborted.
    pub(crate) async fn run(mut self) {
        // A third of the lease, so that one missed heartbeat does not lose a lease.
        let interval = self.config.lease / 3;
        let mut last_heartbeat = Instant::now();
        loop {
            if self.reporter.is_due() {
                self.reporter.report().await;
            }
            tokio::time::sleep(interval.min(STUCK_GRACE)).await;
            self.fail_stuck();
            if last_heartbeat.elapsed() >= interval {
                last_heartbeat = Instant::now();
                self.extend(interval).await;
                self.reporter.report().await;
            }
        }
    }

    async fn extend(&mut self, interval: Duration) {
        // A new lease needs no extension yet; most tasks are settled before their first heartbeat.
        let mut due: Vec<Arc<LeasedTask>> = self.in_flight.all();
        due.retain(|task| task.claimed.elapsed() > interval / 2);
        if due.is_empty() {
            return;
        }
        let leases: Vec<(Uuid, i64)> = due.iter().map(|task| (task.id, task.fencing_token)).collect();
        match self.store.extend_leases(&leases, self.config.lease).await {
            Ok(extended) if extended.len() < leases.len() => {
                // Settled in the meantime, or lost: the settle loop finds out which.
                tracing::debug!(in_flight = leases.len(), extended = extended.len(), "some leases were not extended");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot extend leases: trying again at the next heartbeat"
            ),
        }
        let entries: Vec<EntryId> = due.iter().filter_map(|task| task.entry_id.clone()).collect();
        if let Err(error) = self.acknowledger.touch(&entries).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot reset the idle time of deliveries");
        }
    }

    /// Fails the attempts whose processor still runs after the time-out. Such a processor does not yield and cannot be
    /// stopped: the task is retried or dead-lettered, and the liveness probe fails until the processor returns.
    fn fail_stuck(&self) {
        let mut overdue = self.in_flight.all();
        overdue.retain(|task| task.is_overdue(self.config.timeout + STUCK_GRACE));
        for task in overdue {
            let outcome = self.stuck_outcome(&task);
            self.health.set_stuck(task.id, task.fencing_token, true);
            let Some(ended) = self.in_flight.end(&task, outcome) else {
                self.health.set_stuck(task.id, task.fencing_token, false);
                continue;
            };
            tracing::error!(
                task_id = %task.id,
                attempt = task.attempt,
                "attempt failed: the processor does not yield after the task time-out; restart the worker to stop it"
            );
            let _ = self.ended_attempts.send(ended);
        }
    }

    /// Which event of a batch is the cause is not known, so the batch is split without an attempt for any event.
    fn stuck_outcome(&self, task: &LeasedTask) -> Outcome {
        if let [_, _, ..] = *task.events {
            let child = |(event_id, bytes): &(i64, usize)| Child {
                id: Uuid::now_v7(),
                event_id: *event_id,
                bytes: *bytes,
                state: ChildState::Pending,
            };
            return Outcome::Split { effects: Vec::new(), children: task.events.iter().map(child).collect() };
        }
        let error = attempt::timed_out(self.config.timeout);
        FailurePolicy::now(&self.config.retry).failed(task.attempt, task.max_attempts, error)
    }
}
