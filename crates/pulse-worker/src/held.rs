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
    pub(crate) max_attempts: u32,
    pub(crate) created_at: chrono::DateTime<chrono::Utc>,
    /// The entry to acknowledge; none if the task was claimed without Redis.
    pub(crate) entry_id: Option<String>,
    /// When it was claimed.
    pub(crate) claimed: Instant,
    /// When its step began, if it did.
    pub(crate) started: Option<Instant>,
    /// Ends the step.
    pub(crate) abort: Option<AbortHandle>,
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
            max_attempts: task.max_attempts,
            created_at: task.created_at,
            entry_id,
            claimed: Instant::now(),
            started: None,
            abort: None,
        };
        self.tasks().insert(task.id, held);
    }

    pub(crate) fn set_abort(&self, id: Uuid, abort: AbortHandle) {
        if let Some(task) = self.tasks().get_mut(&id) {
            task.abort = Some(abort);
        }
    }

    pub(crate) fn set_started(&self, id: Uuid) {
        if let Some(task) = self.tasks().get_mut(&id) {
            task.started = Some(Instant::now());
        }
    }

    /// The step was given up: it is not overdue again.
    pub(crate) fn set_stuck(&self, id: Uuid) {
        if let Some(task) = self.tasks().get_mut(&id) {
            task.started = None;
        }
    }

    /// Removes tasks that are settled, or not ours any more.
    pub(crate) fn remove(&self, ids: impl IntoIterator<Item = Uuid>) {
        let mut tasks = self.tasks();
        for id in ids {
            tasks.remove(&id);
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
        let overdue = |task: &HeldTask| task.started.is_some_and(|started| started.elapsed() > limit);
        self.tasks().iter().filter(|(_, task)| overdue(task)).map(|(id, task)| (*id, task.clone())).collect()
    }

    /// Waits until fewer than `limit` tasks are held, `patience` at the most; returns how many more fit.
    pub(crate) async fn room(&self, limit: usize, patience: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let room = limit.saturating_sub(self.len());
            if room > 0 || tokio::time::timeout_at(deadline, changed).await.is_err() {
                return room;
            }
        }
    }

    /// Waits until nothing is held, `patience` at the most.
    pub(crate) async fn emptied(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, async {
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
