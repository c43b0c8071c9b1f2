//! Keeping what we hold: leases are extended, idle times in Redis start again, and processors that never yield are given up.

use std::time::{Duration, Instant};

use pulse_queue::Acknowledger;
use pulse_store::{Claimer, Settlement};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::in_flight::{InFlight, InFlightTask};
use crate::{WorkerConfig, WorkerHealth, attempt};

/// How much longer than its time-out a step may take to end.
const GRACE: Duration = Duration::from_secs(1);

pub(crate) struct Heartbeat {
    pub(crate) claimer: Claimer,
    pub(crate) acknowledger: Acknowledger,
    pub(crate) in_flight: InFlight,
    pub(crate) settlements: mpsc::UnboundedSender<Settlement>,
    pub(crate) health: WorkerHealth,
    pub(crate) config: WorkerConfig,
}

impl Heartbeat {
    /// Beats until it is aborted.
    pub(crate) async fn run(mut self) {
        // A third of the lease, so that one missed beat does no harm.
        let beat = self.config.lease / 3;
        let mut last_beat = Instant::now();
        loop {
            tokio::time::sleep(beat.min(GRACE)).await;
            self.give_up_stuck();
            if last_beat.elapsed() >= beat {
                last_beat = Instant::now();
                self.extend(beat).await;
            }
        }
    }

    async fn extend(&mut self, beat: Duration) {
        // A young claim needs no extension yet; most tasks are settled before their first.
        let old: Vec<(Uuid, InFlightTask)> =
            self.in_flight.all().into_iter().filter(|(_, task)| task.claimed.elapsed() > beat / 2).collect();
        if old.is_empty() {
            return;
        }
        let leases: Vec<(Uuid, i64)> = old.iter().map(|(id, task)| (*id, task.fencing_token)).collect();
        match self.claimer.extend(&leases).await {
            Ok(extended) if extended.len() < leases.len() => {
                // Settled in the meantime, or lost: whoever settles finds out.
                tracing::debug!(in_flight = leases.len(), extended = extended.len(), "some leases were not extended");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot extend leases"),
        }
        let entries: Vec<String> = old.into_iter().filter_map(|(_, task)| task.entry_id).collect();
        if let Err(error) = self.acknowledger.touch(&entries).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "cannot touch deliveries");
        }
    }

    /// A step that still runs after its time-out does not yield, so it cannot be dropped: the task goes on without it,
    /// and the worker says that it wants a restart.
    fn give_up_stuck(&self) {
        for (task_id, task) in self.in_flight.overdue(self.config.timeout + GRACE) {
            self.health.set_stuck(task_id, task.fencing_token, true);
            if !self.in_flight.end(task_id, task.fencing_token) {
                self.health.set_stuck(task_id, task.fencing_token, false);
                continue;
            }
            tracing::error!(%task_id, attempt = task.attempt, "the step does not yield: giving the attempt up");
            let error = attempt::timed_out(self.config.timeout);
            let (now, random) = (chrono::Utc::now(), rand::random());
            let outcome = attempt::failed(task.attempt, task.max_attempts, error, &self.config.retry, now, random);
            let _ = self.settlements.send(Settlement { task_id, fencing_token: task.fencing_token, outcome });
        }
    }
}
