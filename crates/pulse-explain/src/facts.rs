//! The facts of one task.

use chrono::{DateTime, TimeDelta, Utc};
use pulse_queue::QueueFacts;
use pulse_store::{InstanceFacts, Pause, TaskFacts, TaskStatus};

/// Time since the last run of a job after which the scheduler counts as stopped. The rarest of them runs every 5 s.
const JOB_MISSED: TimeDelta = TimeDelta::seconds(15);

/// What is known of a task and of what it may wait for, read together.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The task in PostgreSQL.
    pub task: TaskFacts,
    /// The instance in PostgreSQL.
    pub instance: InstanceFacts,
    /// The queue in Redis, or why it could not be read.
    pub queue: Result<QueueFacts, String>,
    /// The pause of all claims; `None` if they are not paused.
    pub pause: Option<Pause>,
    /// Of a batch that was split: the child that the state depends on.
    pub child: Option<Box<Facts>>,
}

impl Facts {
    pub(crate) fn status(&self) -> &TaskStatus {
        &self.task.task
    }

    /// PostgreSQL's time of the reading.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.task.now
    }

    /// The time since which no scheduler works; `None` if one does.
    pub(crate) fn scheduler_stopped_since(&self) -> Option<Option<DateTime<Utc>>> {
        let Some(until) = self.instance.scheduler_until else { return Some(None) };
        let last = self.instance.jobs.iter().map(|job| job.last_run_at).min();
        let is_running = until > self.now() && last.is_none_or(|last| self.now() - last < JOB_MISSED);
        (!is_running).then_some(last.or(Some(until)))
    }

    /// Time since the task could have been claimed; zero or less if it is not due.
    pub(crate) fn due_for(&self) -> TimeDelta {
        let status = self.status();
        let since =
            [status.next_run_at, status.enqueued_at].into_iter().flatten().fold(status.created_at, DateTime::max);
        self.now() - since
    }
}
