//! Health of a worker, for the probes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// A worker whose fetcher has not polled for this long is not live.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// Health of a worker. Cheap to clone.
#[derive(Clone)]
pub struct WorkerHealth(Arc<HealthState>);

struct HealthState {
    start: Instant,
    last_poll_ms: AtomicU64,
    /// 0: none.
    last_claim_ms: AtomicU64,
    /// Task id and fencing token of attempts that were failed while their processor was still running.
    stuck: Mutex<HashSet<(Uuid, i64)>>,
    redis_unavailable: AtomicBool,
}

/// Removes an attempt from the stuck ones when it is dropped.
pub(crate) struct StuckGuard {
    health: WorkerHealth,
    attempt: (Uuid, i64),
}

impl WorkerHealth {
    pub(crate) fn new() -> Self {
        Self(Arc::new(HealthState {
            start: Instant::now(),
            last_poll_ms: AtomicU64::new(0),
            last_claim_ms: AtomicU64::new(0),
            stuck: Mutex::default(),
            redis_unavailable: false.into(),
        }))
    }

    /// Records that the fetcher polls for tasks.
    pub(crate) fn set_polled(&self) {
        self.0.last_poll_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Records that the fetcher has claimed tasks.
    pub(crate) fn set_claimed(&self) {
        self.0.last_claim_ms.store(self.now_ms().max(1), Ordering::Relaxed);
    }

    /// How long ago the last claim was; `None` before the first one.
    pub(crate) fn last_claim(&self) -> Option<Duration> {
        let at_ms = self.0.last_claim_ms.load(Ordering::Relaxed);
        (at_ms > 0).then(|| Duration::from_millis(self.now_ms().saturating_sub(at_ms)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns a guard to be dropped when the processor of the attempt returns.
    pub(crate) fn stuck_guard(&self, id: Uuid, fencing_token: i64) -> StuckGuard {
        StuckGuard { health: self.clone(), attempt: (id, fencing_token) }
    }

    /// Records whether the processor of the attempt is stuck. Call it before the attempt is ended, so that the guard,
    /// which is dropped afterwards, removes the record.
    pub(crate) fn set_stuck(&self, id: Uuid, fencing_token: i64, stuck: bool) {
        let mut attempts = self.stuck_attempts();
        if stuck {
            attempts.insert((id, fencing_token));
        } else {
            attempts.remove(&(id, fencing_token));
        }
    }

    fn stuck_attempts(&self) -> MutexGuard<'_, HashSet<(Uuid, i64)>> {
        // No code panics while it holds the lock, so the state is consistent.
        self.0.stuck.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Records whether Redis is unavailable; returns the previous value.
    pub(crate) fn set_redis_unavailable(&self, unavailable: bool) -> bool {
        self.0.redis_unavailable.swap(unavailable, Ordering::Relaxed)
    }

    /// Returns why the worker is not live: the fetcher is stalled, or a processor does not yield. `None` if it is live.
    pub fn problem(&self) -> Option<String> {
        let silent =
            self.0.start.elapsed().saturating_sub(Duration::from_millis(self.0.last_poll_ms.load(Ordering::Relaxed)));
        let stuck = self.stuck_attempts().len();
        if stuck > 0 {
            return Some(format!(
                "{stuck} processors do not yield after the task time-out: restart the worker to stop them"
            ));
        }
        (silent > STALLED_AFTER)
            .then(|| format!("the fetcher has not polled for {} s: restart the worker", silent.as_secs()))
    }

    /// Whether Redis is unavailable, so that the fetcher polls PostgreSQL.
    pub fn is_redis_unavailable(&self) -> bool {
        self.0.redis_unavailable.load(Ordering::Relaxed)
    }
}

impl Drop for StuckGuard {
    fn drop(&mut self) {
        let (id, fencing_token) = self.attempt;
        self.health.set_stuck(id, fencing_token, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_is_live_again_after_stuck_processors_return() {
        let health = WorkerHealth::new();
        let (first, second) = (health.stuck_guard(Uuid::nil(), 1), health.stuck_guard(Uuid::nil(), 2));
        health.set_stuck(Uuid::nil(), 1, true);
        assert!(health.problem().is_some());
        drop(second);
        assert!(health.problem().is_some());
        drop(first);
        assert_eq!(health.problem(), None);
    }
}
