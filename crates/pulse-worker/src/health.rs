//! What the probes ask a worker.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// A worker that has not looked for work for this long is not live.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// Whether a worker is live. Cheap to clone.
#[derive(Clone)]
pub struct WorkerHealth(Arc<State>);

struct State {
    start: Instant,
    last_poll_ms: AtomicU64,
    /// Attempts, by task and lease number, that were given up while their step still ran.
    stuck: Mutex<HashSet<(Uuid, i64)>>,
    redis_away: AtomicBool,
}

/// An attempt that is not stuck any more when this is dropped.
pub(crate) struct Watched {
    health: WorkerHealth,
    attempt: (Uuid, i64),
}

impl WorkerHealth {
    pub(crate) fn new() -> Self {
        Self(Arc::new(State {
            start: Instant::now(),
            last_poll_ms: AtomicU64::new(0),
            stuck: Mutex::default(),
            redis_away: false.into(),
        }))
    }

    pub(crate) fn polled(&self) {
        let now = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_poll_ms.store(now, Ordering::Relaxed);
    }

    /// Watches an attempt until the end of its step.
    pub(crate) fn watch(&self, id: Uuid, fencing_token: i64) -> Watched {
        Watched { health: self.clone(), attempt: (id, fencing_token) }
    }

    /// The attempt's step does not yield. To be called before the attempt is ended, so that its end comes after.
    pub(crate) fn set_stuck(&self, id: Uuid, fencing_token: i64, stuck: bool) {
        let mut attempts = self.stuck();
        if stuck {
            attempts.insert((id, fencing_token));
        } else {
            attempts.remove(&(id, fencing_token));
        }
    }

    fn stuck(&self) -> MutexGuard<'_, HashSet<(Uuid, i64)>> {
        // No code panics while it holds the lock, and each change is whole.
        self.0.stuck.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Tells whether Redis is away; returns whether it was before.
    pub(crate) fn set_redis_away(&self, away: bool) -> bool {
        self.0.redis_away.swap(away, Ordering::Relaxed)
    }

    /// Why the worker is not live, if it is not: it stopped looking for work, or a step does not yield.
    pub fn problem(&self) -> Option<String> {
        let silent =
            self.0.start.elapsed().saturating_sub(Duration::from_millis(self.0.last_poll_ms.load(Ordering::Relaxed)));
        let stuck = self.stuck().len();
        if stuck > 0 {
            return Some(format!("{stuck} processors run past their time-out without yielding: restart to end them"));
        }
        (silent > STALLED_AFTER).then(|| format!("has not looked for work for {} s", silent.as_secs()))
    }

    /// Whether Redis is away, so that work is found by polling PostgreSQL.
    pub fn is_redis_away(&self) -> bool {
        self.0.redis_away.load(Ordering::Relaxed)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let (id, fencing_token) = self.attempt;
        self.health.set_stuck(id, fencing_token, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_live_again_when_its_stuck_steps_have_ended() {
        let health = WorkerHealth::new();
        let (first, second) = (health.watch(Uuid::nil(), 1), health.watch(Uuid::nil(), 2));
        health.set_stuck(Uuid::nil(), 1, true);
        assert!(health.problem().is_some());
        drop(second);
        assert!(health.problem().is_some());
        drop(first);
        assert_eq!(health.problem(), None);
    }
}
