//! A leased task: one claim of a task, shared by its attempt, the heartbeat and the drain.

use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use pulse_core::ClaimedTask;
use pulse_queue::EntryId;
use tokio::task::AbortHandle;
use uuid::Uuid;

/// One claim of a task. Its attempt has one outcome: the first one that is decided.
#[derive(Debug)]
pub(crate) struct LeasedTask {
    pub(crate) id: Uuid,
    pub(crate) fencing_token: i64,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: u32,
    /// Id and size in bytes of each event.
    pub(crate) events: Vec<(i64, usize)>,
    /// Size of the events, in bytes.
    pub(crate) bytes: usize,
    pub(crate) created_at: chrono::DateTime<chrono::Utc>,
    /// Stream entry to acknowledge; `None` if the task was claimed without Redis.
    pub(crate) entry_id: Option<EntryId>,
    /// When the task was claimed.
    pub(crate) claimed: Instant,
    /// Name of the first event, for the throughput by name.
    pub(crate) event_name: Option<String>,
    progress: Mutex<Progress>,
    abort: OnceLock<AbortHandle>,
}

/// The attempt already has an outcome, or was superseded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AlreadyEnded;

/// Progress of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Waits for a slot.
    Waiting,
    /// The processor is running since this time.
    Running(Instant),
    /// Has an outcome, which is not settled yet.
    Ended,
    /// This worker has claimed the task again, with a newer fencing token.
    Superseded,
}

impl LeasedTask {
    pub(crate) fn new(task: &ClaimedTask, entry_id: Option<EntryId>) -> Self {
        Self {
            id: task.id,
            fencing_token: task.fencing_token,
            attempt: task.attempt,
            max_attempts: task.max_attempts,
            events: task.events.iter().map(|event| (event.id, event.bytes())).collect(),
            bytes: task.bytes,
            created_at: task.created_at,
            entry_id,
            claimed: Instant::now(),
            event_name: task.events.first().map(|event| event.fields.event_name.clone()),
            progress: Mutex::new(Progress::Waiting),
            abort: OnceLock::new(),
        }
    }

    /// Sets what aborts the attempt.
    pub(crate) fn set_abort(&self, abort: AbortHandle) {
        let _ = self.abort.set(abort);
    }

    /// Aborts the attempt.
    pub(crate) fn abort(&self) {
        if let Some(abort) = self.abort.get() {
            abort.abort();
        }
    }

    /// Marks the attempt as running. Returns false if it was released or superseded, and must not run.
    pub(crate) fn begin(&self) -> bool {
        let mut progress = self.progress();
        let waits = *progress == Progress::Waiting;
        if waits {
            *progress = Progress::Running(Instant::now());
        }
        waits
    }

    /// Marks the attempt as ended, so that it cannot be overdue. Returns for how long it ran, if it began; an error if it
    /// already has an outcome, or was superseded.
    pub(crate) fn end(&self) -> Result<Option<Duration>, AlreadyEnded> {
        let mut progress = self.progress();
        let ran = match *progress {
            Progress::Waiting => None,
            Progress::Running(since) => Some(since.elapsed()),
            Progress::Ended | Progress::Superseded => return Err(AlreadyEnded),
        };
        *progress = Progress::Ended;
        Ok(ran)
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(*self.progress(), Progress::Running(_))
    }

    /// Marks the claim as superseded by a newer one: its outcome is not settled.
    pub(crate) fn supersede(&self) {
        *self.progress() = Progress::Superseded;
    }

    /// For how long the worker has had the lease.
    pub(crate) fn held(&self) -> Duration {
        self.claimed.elapsed()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        *self.progress() == Progress::Waiting
    }

    pub(crate) fn is_superseded(&self) -> bool {
        *self.progress() == Progress::Superseded
    }

    /// Whether the processor started longer than `limit` ago and still runs.
    pub(crate) fn is_overdue(&self, limit: Duration) -> bool {
        matches!(*self.progress(), Progress::Running(since) if since.elapsed() > limit)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // No code panics while it holds the lock, so the progress is consistent.
        self.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
