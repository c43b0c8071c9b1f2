//! The heartbeat: extends leases, resets the idle time of deliveries in Redis, and fails stuck attempts.

use std::time::{Duration, Instant};

use pulse_queue::Acknowledger;
use pulse_store::{Claimer, Settlement};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::in_flight::{InFlight, InFlightTask};
use crate::{WorkerConfig, WorkerHealth, attempt};

/// Time for which a processor may exceed the task time-out before it counts as stuck.
const STUCK_GRACE: Duration = Duration::from_secs(1);

pub(crate) struct Heartbeat {
    pub(crate) claimer: Claimer,
    pub(crate) acknowledger: Acknowledger,
    pub(crate) in_flight: InFlight,
    pub(crate) settlements: mpsc::UnboundedSender<Settlement>,
    pub(crate) health: WorkerHealth,
    pub(crate) config: WorkerConfig,
}

impl Heartbeat {
    /// Runs until it is aborted.
    pub(crate) async fn run(mut self) {
        // A third of the lease, so that one missed heartbeat does not lose a lease.
        let interval = self.config.lease / 3;
        let mut last_heartbeat = Instant::now();
        loop {
            tokio::time::sleep(interval.min(STUCK_GRACE)).await;
            self.fail_stuck();
            if last_heartbeat.elapsed() >= interval {
                last_heartbeat = Instant::now();
                self.extend(interval).await;
            }
        }
    }

    async fn extend(&mut self, interval: Duration) {
        // A new lease needs no extension yet; most tasks are settled before their first heartbeat.
        let due: Vec<(Uuid, InFlightTask)> =
            self.in_flight.all().into_iter().filter(|(_, task)| task.claimed.elapsed() > interval / 2).collect();
        if due.is_empty() {
            return;
        }
        let leases: Vec<(Uuid, i64)> = due.iter().map(|(id, task)| (*id, task.fencing_token)).collect();
        match self.claimer.extend(&leases).await {
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
        let entries: Vec<String> = due.into_iter().filter_map(|(_, task)| task.entry_id).collect();
        if let Err(error) = self.acknowledger.touch(&entries).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot reset the idle time of deliveries");
        }
    }

    /// Fails the attempts whose processor still runs after the time-out. Such a processor does not yield and cannot be
    /// stopped: the task is retried or dead-lettered, and the liveness probe fails until the processor returns.
    fn fail_stuck(&self) {
        for (task_id, task) in self.in_flight.overdue(self.config.timeout + STUCK_GRACE) {
            self.health.set_stuck(task_id, task.fencing_token, true);
            if !self.in_flight.end(task_id, task.fencing_token) {
                self.health.set_stuck(task_id, task.fencing_token, false);
                continue;
            }
            tracing::error!(
                %task_id,
                attempt = task.attempt,
                "attempt failed: the processor does not yield after the task time-out; restart the worker to stop it"
            );
            let error = attempt::timed_out(self.config.timeout);
            let (now, random) = (chrono::Utc::now(), rand::random());
            let outcome = attempt::failed(task.attempt, task.max_attempts, error, &self.config.retry, now, random);
            let _ = self.settlements.send(Settlement { task_id, fencing_token: task.fencing_token, outcome });
        }
    }
}
