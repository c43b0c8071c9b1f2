//! The causes, in the order in which they dominate each other.

use serde::Serialize;

/// Why a task is in its state. The codes are stable.
///
/// If several hold, the one that comes first here dominates: the one that would keep the task waiting longest. First what
/// ends only when a person acts, and of these what hurts most tasks; then what ends by itself, the longest first; last what
/// is normal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The results are stored.
    Completed,
    /// An administrator cancelled it.
    Cancelled,
    /// Its events were deleted.
    Orphaned,
    /// Dead: the payload can never be processed.
    DeadInvalidPayload,
    /// Dead: workers died in its attempts.
    DeadCrash,
    /// Dead: the last attempt failed.
    DeadAttempts,
    /// It ended, but a child of the batch did not complete.
    Child,
    /// All claims are paused.
    Paused,
    /// It kills the workers that run it.
    Poison,
    /// No worker runs.
    NoWorker,
    /// Another transaction has locked its row or that of an event.
    RowLocked,
    /// No scheduler runs, and it needs one.
    SchedulerStopped,
    /// A worker that has it is stopped or hangs.
    WorkerStopped,
    /// All workers are busy with attempts that take long.
    WorkersBusy,
    /// It waits for its next attempt.
    Backoff,
    /// Its worker is dead, and the lease has not expired.
    LeaseNotExpired,
    /// The worker that read or leased it is dead.
    WorkerGone,
    /// Redis has refused its entry.
    RedisFull,
    /// Its entry is lost.
    LostEntry,
    /// Redis does not answer.
    RedisAway,
    /// Most of the tasks before it are those of one other user.
    Neighbour,
    /// Its own user has many tasks before it.
    OwnBacklog,
    /// Many tasks are before it.
    Backlog,
    /// A worker died while it had the task: it runs alone.
    Crashed,
    /// Its user was deleted.
    UserDeleted,
    /// An attempt runs.
    Running,
    /// It is next, or nearly.
    InLine,
    /// Its user is disabled, which does not hold it back.
    UserDisabled,
}

impl Cause {
    /// Whether the sentence is about the task and its user alone, without the names of others.
    pub(crate) fn is_own(self) -> bool {
        matches!(
            self,
            Self::Completed
                | Self::Cancelled
                | Self::Orphaned
                | Self::DeadInvalidPayload
                | Self::DeadCrash
                | Self::DeadAttempts
                | Self::Backoff
                | Self::OwnBacklog
                | Self::Backlog
                | Self::Crashed
                | Self::UserDeleted
                | Self::Running
                | Self::InLine
                | Self::UserDisabled
        )
    }
}
