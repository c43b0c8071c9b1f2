//! The tasks in our hands: claimed, and not settled yet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pulse_core::Claimed;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use uuid::Uuid;

/// A task in our hands.
#[derive(Debug, Clone)]
pub(crate) struct HeldTask {
    pub(crate) lease_no: i64,
    pub(crate) attempt: u32,
    pub(crate) events: usize,
    pub(crate) max_attempts: u32,
    pub(crate) created_at: chrono::DateTime<chrono::Utc>,
    /// The entry to acknowledge; none if the task was claimed without Redis.
    pub(crate) entry_id: Option<String>,
    /// When it was claimed.
    pub(crate) claimed: Instant,
    pub(crate) progress: Progress,
    /// Ends the step.
    pub(crate) abort: Option<AbortHandle>,
}

/// How far the attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It waits for a slot.
    Waiting,
    /// Its step runs since then.
    Running(Instant),
    /// Its verdict is on its way.
    Ended,
}

/// How much more may be held; never nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) tasks: usize,
    pub(crate) events: usize,
}

/// All of them. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Held(Arc<Inner>);

#[derive(Default)]
struct Inner {
    tasks: Mutex<HashMap<Uuid, HeldTask>>,
    changed: Notify,
}

impl Held {
    fn tasks(&self) -> MutexGuard<'_, HashMap<Uuid, HeldTask>> {
        // No code panics while it holds the lock, and each change is whole.
        self.0.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn add(&self, task: &Claimed, entry_id: Option<String>) {
        let held = HeldTask {
            lease_no: task.lease_no,
            attempt: task.attempt,
            events: task.events.len(),
            max_attempts: task.max_attempts,
            created_at: task.created_at,
            entry_id,
            claimed: Instant::now(),
            progress: Progress::Waiting,
            abort: None,
        };
        self.tasks().insert(task.id, held);
    }

    pub(crate) fn set_abort(&self, id: Uuid, lease_no: i64, abort: AbortHandle) {
        if let Some(task) = self.tasks().get_mut(&id).filter(|task| task.lease_no == lease_no) {
            task.abort = Some(abort);
        }
    }

    /// The step begins; false if the attempt was withdrawn, and must not.
    pub(crate) fn begin(&self, id: Uuid, lease_no: i64) -> bool {
        let mut tasks = self.tasks();
        let waiting = |task: &&mut HeldTask| task.lease_no == lease_no && task.progress == Progress::Waiting;
        let Some(task) = tasks.get_mut(&id).filter(waiting) else { return false };
        task.progress = Progress::Running(Instant::now());
        true
    }

    /// The attempt has its verdict, so it cannot be overdue any more; false if it had one before.
    pub(crate) fn end(&self, id: Uuid, lease_no: i64) -> bool {
        let mut tasks = self.tasks();
        let open = |task: &&mut HeldTask| task.lease_no == lease_no && task.progress != Progress::Ended;
        let Some(task) = tasks.get_mut(&id).filter(open) else { return false };
        task.progress = Progress::Ended;
        true
    }

    /// Forgets tasks that are settled, or not ours any more. The same task under a newer lease stays.
    pub(crate) fn remove(&self, leases: impl IntoIterator<Item = (Uuid, i64)>) {
        let mut tasks = self.tasks();
        for (id, lease_no) in leases {
            if tasks.get(&id).is_some_and(|task| task.lease_no == lease_no) {
                tasks.remove(&id);
            }
        }
        drop(tasks);
        self.0.changed.notify_waiters();
    }

    pub(crate) fn get(&self, id: Uuid, lease_no: i64) -> Option<HeldTask> {
        self.tasks().get(&id).filter(|task| task.lease_no == lease_no).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(Uuid, HeldTask)> {
        self.tasks().iter().map(|(id, task)| (*id, task.clone())).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.tasks().len()
    }

    /// Tasks whose step began longer than `limit` ago: it does not yield, or it would have timed out.
    pub(crate) fn overdue(&self, limit: Duration) -> Vec<(Uuid, HeldTask)> {
        let overdue = |task: &HeldTask| matches!(task.progress, Progress::Running(since) if since.elapsed() > limit);
        self.tasks().iter().filter(|(_, task)| overdue(task)).map(|(id, task)| (*id, task.clone())).collect()
    }

    /// What more fits below these limits.
    fn room_now(&self, tasks: usize, events: usize) -> Option<Room> {
        let held = self.tasks();
        let (tasks, events) =
            (tasks.checked_sub(held.len())?, events.checked_sub(held.values().map(|task| task.events).sum())?);
        (tasks > 0 && events > 0).then_some(Room { tasks, events })
    }

    /// Waits until fewer than `tasks` tasks with fewer than `events` events are held, `patience` at the most; returns
    /// what more fits.
    pub(crate) async fn room(&self, tasks: usize, events: usize, patience: Duration) -> Option<Room> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let room = self.room_now(tasks, events);
            if room.is_some() || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return room;
            }
        }
    }

    /// Waits until nothing is held, or until `deadline`.
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

    fn claimed(lease_no: i64) -> Claimed {
        Claimed {
            id: Uuid::nil(),
            event_count: 0,
            events: Vec::new(),
            attempt: 1,
            max_attempts: 3,
            lease_no,
            crashed: false,
            created_at: chrono::DateTime::UNIX_EPOCH,
            traceparent: None,
            request_id: None,
        }
    }

    #[test]
    fn an_older_lease_neither_moves_nor_removes_a_newer_one() {
        let held = Held::default();
        held.add(&claimed(2), None);
        assert!(!held.begin(Uuid::nil(), 1));
        assert!(!held.end(Uuid::nil(), 1));
        held.remove([(Uuid::nil(), 1)]);
        assert_eq!(held.len(), 1);
        held.remove([(Uuid::nil(), 2)]);
        assert_eq!(held.len(), 0);
    }

    #[test]
    fn an_attempt_has_one_verdict_and_is_not_overdue_after_it() {
        let held = Held::default();
        held.add(&claimed(1), None);
        assert!(held.begin(Uuid::nil(), 1));
        assert_eq!(held.overdue(Duration::ZERO).len(), 1);
        assert!(held.end(Uuid::nil(), 1));
        assert!(held.overdue(Duration::ZERO).is_empty());
        assert!(!held.end(Uuid::nil(), 1));
    }

    #[tokio::test]
    async fn there_is_room_below_the_limits_of_tasks_and_of_events() {
        let held = Held::default();
        let room = async |tasks, events| held.room(tasks, events, Duration::ZERO).await;
        assert_eq!(room(1, 1).await, Some(Room { tasks: 1, events: 1 }));
        held.add(&claimed(1), None);
        held.tasks().values_mut().for_each(|task| task.events = 100);
        assert_eq!(room(3, 150).await, Some(Room { tasks: 2, events: 50 }));
        assert_eq!(room(1, 150).await, None);
        assert_eq!(room(3, 100).await, None);
        assert_eq!(room(3, 99).await, None);
    }

    #[test]
    fn an_attempt_that_was_withdrawn_does_not_begin() {
        let held = Held::default();
        held.add(&claimed(1), None);
        assert!(held.end(Uuid::nil(), 1));
        assert!(!held.begin(Uuid::nil(), 1));
    }
}
