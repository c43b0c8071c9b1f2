//! In-flight tasks: claimed by this worker and not settled yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pulse_core::{ClaimedTask, TRACE};
use pulse_queue::EntryId;
use pulse_store::{Outcome, Settlement};
use tokio::sync::Notify;
use tracing::Span;
use uuid::Uuid;

use crate::leased_task::LeasedTask;

/// How much more can be claimed; neither number is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) tasks: usize,
    pub(crate) bytes: usize,
}

/// All in-flight tasks of a worker. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tasks: Mutex<HashMap<Uuid, Arc<LeasedTask>>>,
    changed: Notify,
}

/// An attempt with its outcome. Its task stays in flight until this is dropped.
pub(crate) struct EndedAttempt {
    pub(crate) task: Arc<LeasedTask>,
    pub(crate) settlement: Settlement,
    /// Since when another transaction keeps it from being settled.
    pub(crate) locked_since: Option<tokio::time::Instant>,
    /// From the end of the attempt until it is settled.
    pub(crate) span: Span,
    in_flight: InFlight,
}

impl Drop for EndedAttempt {
    fn drop(&mut self) {
        self.in_flight.remove_tasks([&self.task]);
    }
}

impl InFlight {
    fn tasks(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<LeasedTask>>> {
        // No code panics while it holds the lock, so the state is consistent.
        self.0.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds a claimed task. An older claim of the same task is superseded: its lease was lost.
    pub(crate) fn add(&self, task: &ClaimedTask, entry_id: Option<EntryId>) -> Arc<LeasedTask> {
        let leased = Arc::new(LeasedTask::new(task, entry_id));
        if let Some(older) = self.tasks().insert(task.id, leased.clone()) {
            older.supersede();
        }
        leased
    }

    /// Ends the attempt with this outcome. Returns `None` if it already has one, or was superseded.
    pub(crate) fn end(&self, task: &Arc<LeasedTask>, outcome: Outcome) -> Option<EndedAttempt> {
        let ran = task.end().ok()?;
        let settlement = Settlement {
            task_id: task.id,
            fencing_token: task.fencing_token,
            created_at: task.created_at,
            event_ids: task.events.iter().map(|(id, _)| *id).collect(),
            ran,
            outcome,
        };
        let span = tracing::debug_span!(target: TRACE, "settle_task");
        Some(EndedAttempt { task: task.clone(), settlement, locked_since: None, span, in_flight: self.clone() })
    }

    /// Removes the tasks of these attempts together, so that the fetcher claims as many again with one statement.
    pub(crate) fn remove(&self, attempts: Vec<EndedAttempt>) {
        self.remove_tasks(attempts.iter().map(|attempt| &attempt.task));
    }

    fn remove_tasks<'a>(&self, leased: impl IntoIterator<Item = &'a Arc<LeasedTask>>) {
        let mut tasks = self.tasks();
        let before = tasks.len();
        for task in leased {
            if tasks.get(&task.id).is_some_and(|current| Arc::ptr_eq(current, task)) {
                tasks.remove(&task.id);
            }
        }
        let is_changed = tasks.len() < before;
        drop(tasks);
        if is_changed {
            self.0.changed.notify_waiters();
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<LeasedTask>> {
        self.tasks().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks().len()
    }

    /// Returns the capacity below these limits, if there is any.
    fn capacity_now(&self, tasks: usize, bytes: usize) -> Option<Capacity> {
        let in_flight = self.tasks();
        let (tasks, bytes) =
            (tasks.checked_sub(in_flight.len())?, bytes.checked_sub(in_flight.values().map(|task| task.bytes).sum())?);
        (tasks > 0 && bytes > 0).then_some(Capacity { tasks, bytes })
    }

    /// Waits until fewer than `tasks` tasks with fewer than `bytes` bytes are in flight, at most for `timeout`. Returns the
    /// capacity below these limits.
    pub(crate) async fn capacity(&self, tasks: usize, bytes: usize, timeout: Duration) -> Option<Capacity> {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let capacity = self.capacity_now(tasks, bytes);
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
    use pulse_core::{Event, TextFields};

    use super::*;

    fn claimed(fencing_token: i64, events: i64) -> ClaimedTask {
        let time = chrono::DateTime::UNIX_EPOCH;
        let event = |id| Event {
            id,
            task_id: Uuid::nil(),
            user_id: 1,
            fields: TextFields::default(),
            payload: "{}".into(),
            event_timestamp: time,
            created_at: time,
        };
        ClaimedTask {
            id: Uuid::nil(),
            events: (0..events).map(event).collect(),
            bytes: usize::try_from(events).expect("small"),
            attempt: 1,
            max_attempts: 3,
            fencing_token,
            created_at: time,
            traceparent: None,
            request_id: None,
        }
    }

    #[test]
    fn older_claim_neither_runs_nor_removes_a_newer_one() {
        let in_flight = InFlight::default();
        let waiting = in_flight.add(&claimed(1, 1), None);
        let running = in_flight.add(&claimed(2, 1), None);
        assert!(running.begin());
        let ended = in_flight.add(&claimed(3, 1), None);
        let attempt = in_flight.end(&ended, Outcome::Release(Duration::ZERO)).expect("the attempt is open");
        assert!(!attempt.task.is_superseded());
        let newest = in_flight.add(&claimed(4, 1), None);
        assert!(attempt.task.is_superseded());
        assert!(!waiting.begin());
        assert!(in_flight.end(&waiting, Outcome::Release(Duration::ZERO)).is_none());
        assert!(!running.is_overdue(Duration::ZERO));
        assert!(in_flight.end(&running, Outcome::Release(Duration::ZERO)).is_none());
        drop(attempt);
        assert_eq!(in_flight.len(), 1);
        drop(in_flight.end(&newest, Outcome::Release(Duration::ZERO)));
        assert_eq!(in_flight.len(), 0);
    }

    #[test]
    fn attempt_has_one_outcome_and_is_not_overdue_after_it() {
        let in_flight = InFlight::default();
        let task = in_flight.add(&claimed(1, 1), None);
        assert!(task.begin());
        assert!(task.is_overdue(Duration::ZERO));
        let attempt = in_flight.end(&task, Outcome::Orphaned);
        assert!(attempt.is_some());
        assert!(!task.is_overdue(Duration::ZERO));
        assert!(in_flight.end(&task, Outcome::Release(Duration::ZERO)).is_none());
    }

    #[test]
    fn task_is_in_flight_until_its_ended_attempt_is_dropped() {
        let in_flight = InFlight::default();
        let task = in_flight.add(&claimed(1, 1), None);
        let attempt = in_flight.end(&task, Outcome::Release(Duration::ZERO));
        assert!(!task.begin());
        assert_eq!(in_flight.len(), 1);
        drop(attempt);
        assert_eq!(in_flight.len(), 0);
    }

    #[tokio::test]
    async fn capacity_is_limited_by_tasks_and_by_bytes() {
        let in_flight = InFlight::default();
        let capacity = async |tasks, bytes| in_flight.capacity(tasks, bytes, Duration::ZERO).await;
        assert_eq!(capacity(1, 1).await, Some(Capacity { tasks: 1, bytes: 1 }));
        let task = in_flight.add(&claimed(1, 100), None);
        assert_eq!(capacity(3, 150).await, Some(Capacity { tasks: 2, bytes: 50 }));
        assert_eq!(capacity(1, 150).await, None);
        assert_eq!(capacity(3, 100).await, None);
        assert_eq!(capacity(3, 99).await, None);
        in_flight.remove(in_flight.end(&task, Outcome::Release(Duration::ZERO)).into_iter().collect());
        assert_eq!(capacity(1, 1).await, Some(Capacity { tasks: 1, bytes: 1 }));
    }
}
