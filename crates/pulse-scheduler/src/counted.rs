//! A count of the backlog, brought up to date by the totals.

use pulse_store::{Backlog, TaskTotals};
use tokio::time::Instant;

/// What was counted, and the totals at that time.
#[derive(Debug, Clone)]
pub(crate) struct Counted {
    pub(crate) backlog: Backlog,
    pub(crate) totals: TaskTotals,
    pub(crate) at: Instant,
}

impl Counted {
    /// The backlog now, from the tasks that were accepted and the attempts that ended since. Acts of administrators and split
    /// batches count at the next count.
    pub(crate) fn now(&self, totals: TaskTotals) -> Backlog {
        let accepted = totals.accepted - self.totals.accepted;
        let settled = (totals.attempts - self.totals.attempts) - (totals.retried - self.totals.retried);
        let changed = |count: i64| (count + accepted - settled).max(0);
        let elapsed = self.at.elapsed();
        let elapsed_ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let last = &self.backlog;
        Backlog {
            unsettled: changed(last.unsettled),
            pending: changed(last.pending),
            due: changed(last.due),
            next_due_ms: last.next_due_ms.map(|time| (time - elapsed_ms).max(0)),
            oldest_due_ms: last.oldest_due_ms.map(|age| age + elapsed_ms),
            ..last.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn estimate_follows_what_was_accepted_and_settled() {
        let backlog = Backlog {
            unsettled: 1000,
            pending: 900,
            running: 60,
            retrying: 40,
            due: 950,
            due_not_enqueued: 3,
            delayed: 40,
            dead: 7,
            next_due_ms: Some(1500),
            oldest_due_ms: Some(20),
            oldest_age_seconds: 5.0,
            due_from: chrono::DateTime::UNIX_EPOCH,
            default_partition_rows: 0,
        };
        let totals = TaskTotals { accepted: 5000, attempts: 4000, retried: 100, attempt_ms: 0 };
        let counted = Counted { backlog, totals, at: Instant::now() - Duration::from_secs(2) };
        let now = counted.now(TaskTotals { accepted: 5010, attempts: 4130, retried: 120, attempt_ms: 9 });
        assert_eq!((now.unsettled, now.pending, now.due, now.running), (900, 800, 850, 60));
        assert_eq!(now.next_due_ms, Some(0));
        assert!(now.oldest_due_ms.is_some_and(|age| age >= 2020), "{now:?}");
        let drained = counted.now(TaskTotals { accepted: 5000, attempts: 9000, retried: 100, attempt_ms: 9 });
        assert_eq!(drained.unsettled, 0);
    }
}
