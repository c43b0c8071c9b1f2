//! In-flight tasks: claimed by this worker and not settled yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pulse_core::ClaimedTask;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use uuid::Uuid;

/// An in-flight task.
#[derive(Debug, Clone)]
pub(crate) struct InFlightTask {
    pub(crate) fencing_token: i64,
    pub(crate) attempt: u32,
    pub(crate) events: usize,
    pub(crate) max_attempts: u32,
    pub(crate) created_at: chrono::DateTime<chrono::Utc>,
    /// Stream entry to acknowledge; `None` if the task was claimed without Redis.
    pub(crate) entry_id: Option<String>,
    /// When the task was claimed.
    pub(crate) claimed: Instant,
    pub(crate) progress: Progress,
    /// Aborts the attempt.
    pub(crate) abort: Option<AbortHandle>,
}

/// Progress of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Waits for a slot.
    Waiting,
    /// The processor is running since this time.
    Running(Instant),
    /// Has an outcome, which is not settled yet.
    Ended,
}

/// How much more can be claimed; neither number is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) tasks: usize,
    pub(crate) events: usize,
}

/// All in-flight tasks of a worker. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tasks: Mutex<HashMap<Uuid, InFlightTask>>,
    changed: Notify,
}

impl InFlight {
    fn tasks(&self) -> MutexGuard<'_, HashMap<Uuid, InFlightTask>> {
        // No code panics while it holds the lock, so the state is consistent.
        self.0.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn add(&self, task: &ClaimedTask, entry_id: Option<String>) {
        let in_flight = InFlightTask {
            fencing_token: task.fencing_token,
            attempt: task.attempt,
            events: task.events.len(),
            max_attempts: task.max_attempts,
            created_at: task.created_at,
            entry_id,
            claimed: Instant::now(),
            progress: Progress::Waiting,
            abort: None,
        };
        self.tasks().insert(task.id, in_flight);
    }

    pub(crate) fn set_abort(&self, id: Uuid, fencing_token: i64, abort: AbortHandle) {
        if let Some(task) = self.tasks().get_mut(&id).filter(|task| task.fencing_token == fencing_token) {
            task.abort = Some(abort);
        }
    }

    /// Marks the attempt as running. Returns false if it was released or lost its lease, and must not run.
    pub(crate) fn begin(&self, id: Uuid, fencing_token: i64) -> bool {
        let mut tasks = self.tasks();
        let waiting =
            |task: &&mut InFlightTask| task.fencing_token == fencing_token && task.progress == Progress::Waiting;
        let Some(task) = tasks.get_mut(&id).filter(waiting) else { return false };
        task.progress = Progress::Running(Instant::now());
        true
    }

    /// Marks the attempt as ended, so that it cannot be overdue. Returns false if it already has an outcome.
    pub(crate) fn end(&self, id: Uuid, fencing_token: i64) -> bool {
        let mut tasks = self.tasks();
        let open = |task: &&mut InFlightTask| task.fencing_token == fencing_token && task.progress != Progress::Ended;
        let Some(task) = tasks.get_mut(&id).filter(open) else { return false };
        task.progress = Progress::Ended;
        true
    }

    /// Removes tasks that are settled or lost. The same task with a newer fencing token stays.
    pub(crate) fn remove(&self, leases: impl IntoIterator<Item = (Uuid, i64)>) {
        let mut tasks = self.tasks();
        for (id, fencing_token) in leases {
            if tasks.get(&id).is_some_and(|task| task.fencing_token == fencing_token) {
                tasks.remove(&id);
            }
        }
        drop(tasks);
        self.0.changed.notify_waiters();
    }

    pub(crate) fn get(&self, id: Uuid, fencing_token: i64) -> Option<InFlightTask> {
        self.tasks().get(&id).filter(|task| task.fencing_token == fencing_token).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(Uuid, InFlightTask)> {
        self.tasks().iter().map(|(id, task)| (*id, task.clone())).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks().len()
    }

    /// Returns the tasks whose processor started longer than `limit` ago.
    pub(crate) fn overdue(&self, limit: Duration) -> Vec<(Uuid, InFlightTask)> {
        let overdue =
            |task: &InFlightTask| matches!(task.progress, Progress::Running(since) if since.elapsed() > limit);
        self.tasks().iter().filter(|(_, task)| overdue(task)).map(|(id, task)| (*id, task.clone())).collect()
    }

    /// Returns the capacity below these limits, if there is any.
    fn capacity_now(&self, tasks: usize, events: usize) -> Option<Capacity> {
        let in_flight = self.tasks();
        let (tasks, events) = (
            tasks.checked_sub(in_flight.len())?,
            events.checked_sub(in_flight.values().map(|task| task.events).sum())?,
        );
        (tasks > 0 && events > 0).then_some(Capacity { tasks, events })
    }

    /// Waits until fewer than `tasks` tasks with fewer than `events` events are in flight, at most for `timeout`.
    /// Returns the capacity below these limits.
    pub(crate) async fn capacity(&self, tasks: usize, events: usize, timeout: Duration) -> Option<Capacity> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let capacity = self.capacity_now(tasks, events);
            if capacity.is_some() || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return capacity;
            }
        }
    }

    /// Waits until no task is in flight, or until `deadline`.
    pub(crate) async fn emptied(&self, deadline: tokio::time::Instant) {
        let _ = tokio::time::timeout_at(deadline, async {
            loop {
                let changed = self.0.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.len() == 0 {
                    return;
                }
                changed.await;
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(fencing_token: i64) -> ClaimedTask {
        ClaimedTask {
            id: Uuid::nil(),
            event_count: 0,
            events: Vec::new(),
            attempt: 1,
            max_attempts: 3,
            fencing_token,
            crashed: false,
            created_at: chrono::DateTime::UNIX_EPOCH,
            traceparent: None,
            request_id: None,
        }
    }

    #[test]
    fn older_fencing_token_neither_changes_nor_removes_a_newer_lease() {
        let in_flight = InFlight::default();
        in_flight.add(&claimed(2), None);
        assert!(!in_flight.begin(Uuid::nil(), 1));
        assert!(!in_flight.end(Uuid::nil(), 1));
        in_flight.remove([(Uuid::nil(), 1)]);
        assert_eq!(in_flight.len(), 1);
        in_flight.remove([(Uuid::nil(), 2)]);
        assert_eq!(in_flight.len(), 0);
    }

    #[test]
    fn attempt_has_one_outcome_and_is_not_overdue_after_it() {
        let in_flight = InFlight::default();
        in_flight.add(&claimed(1), None);
        assert!(in_flight.begin(Uuid::nil(), 1));
        assert_eq!(in_flight.overdue(Duration::ZERO).len(), 1);
        assert!(in_flight.end(Uuid::nil(), 1));
        assert!(in_flight.overdue(Duration::ZERO).is_empty());
        assert!(!in_flight.end(Uuid::nil(), 1));
    }

    #[tokio::test]
    async fn capacity_is_limited_by_tasks_and_by_events() {
        let in_flight = InFlight::default();
        let capacity = async |tasks, events| in_flight.capacity(tasks, events, Duration::ZERO).await;
        assert_eq!(capacity(1, 1).await, Some(Capacity { tasks: 1, events: 1 }));
        in_flight.add(&claimed(1), None);
        in_flight.tasks().values_mut().for_each(|task| task.events = 100);
        assert_eq!(capacity(3, 150).await, Some(Capacity { tasks: 2, events: 50 }));
        assert_eq!(capacity(1, 150).await, None);
        assert_eq!(capacity(3, 100).await, None);
        assert_eq!(capacity(3, 99).await, None);
    }

    #[test]
    fn released_attempt_does_not_begin() {
        let in_flight = InFlight::default();
        in_flight.add(&claimed(1), None);
        assert!(in_flight.end(Uuid::nil(), 1));
        assert!(!in_flight.begin(Uuid::nil(), 1));
    }
}
