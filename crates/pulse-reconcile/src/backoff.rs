//! The back-off of each object that could not be applied. It holds only that object.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::ReconcileError;

/// The back-offs of one instance's objects.
#[derive(Debug, Clone, Default)]
pub struct Backoffs(HashMap<String, Backoff>);

/// An attempt to apply an object.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Kind and name of the object.
    pub key: String,
    /// Hash of the desired object.
    pub hash: String,
    /// Generation of the spec.
    pub generation: Option<i64>,
}

#[derive(Debug, Clone)]
struct Backoff {
    tried: Attempt,
    until: Instant,
    failures: u32,
    failure: ReconcileError,
}

impl Backoff {
    /// A changed spec or a changed object, such as after a migration or with a rotated Secret, is tried at once.
    fn is_about(&self, attempt: &Attempt) -> bool {
        self.tried.hash == attempt.hash && self.tried.generation == attempt.generation
    }
}

impl Backoffs {
    /// The failure because of which the object is not tried now; `None` if it may be.
    pub fn held(&self, attempt: &Attempt, now: Instant) -> Option<ReconcileError> {
        let backoff = self.0.get(&attempt.key).filter(|backoff| backoff.is_about(attempt) && now < backoff.until)?;
        Some(backoff.failure.clone())
    }

    /// Starts the back-off, or prolongs it after another failure of the same object. `wait` returns its duration
    /// for a number of failures before. Returns that.
    pub fn failed(
        &mut self,
        attempt: Attempt,
        failure: ReconcileError,
        wait: impl FnOnce(u32) -> Duration,
        now: Instant,
    ) -> Duration {
        let before = self.0.get(&attempt.key).filter(|backoff| backoff.is_about(&attempt));
        let failures = before.map_or(0, |backoff| backoff.failures);
        let wait = wait(failures);
        let key = attempt.key.clone();
        self.0.insert(key, Backoff { tried: attempt, until: now + wait, failures: failures + 1, failure });
        wait
    }

    /// Ends the back-off.
    pub fn succeeded(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Those at the end of the reconcile that began at `now`: back-offs that had ended by then and were not renewed are of
    /// objects that are not desired any more.
    #[must_use]
    pub fn pruned(mut self, now: Instant) -> Self {
        self.0.retain(|_, backoff| now < backoff.until);
        self
    }

    /// Whether anything waits for its next attempt.
    pub fn has_failures(&self) -> bool {
        !self.0.is_empty()
    }

    /// Time until the next attempt.
    pub fn next_attempt(&self, now: Instant) -> Option<Duration> {
        self.0.values().map(|backoff| backoff.until.saturating_duration_since(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(failures: u32) -> Duration {
        Duration::from_secs(1 << failures)
    }

    fn attempt(key: &str, hash: &str, generation: i64) -> Attempt {
        Attempt { key: key.into(), hash: hash.into(), generation: Some(generation) }
    }

    #[test]
    fn failed_object_holds_only_itself_until_it_changes() {
        let (mut backoffs, now) = (Backoffs::default(), Instant::now());
        let failure = ReconcileError::Contested("refused".into());
        backoffs.failed(attempt("a", "1", 1), failure.clone(), wait, now);
        assert_eq!(backoffs.held(&attempt("a", "1", 1), now), Some(failure.clone()));
        assert_eq!(backoffs.held(&attempt("b", "1", 1), now), None, "another object");
        assert_eq!(backoffs.held(&attempt("a", "2", 1), now), None, "a rotated Secret or a finished migration");
        assert_eq!(backoffs.held(&attempt("a", "1", 2), now), None, "a changed spec");
        let second = backoffs.failed(attempt("a", "1", 1), failure.clone(), wait, now);
        assert!(second > Duration::from_millis(1500), "{second:?}");
        assert_eq!(backoffs.next_attempt(now), Some(second));
        assert_eq!(backoffs.held(&attempt("a", "1", 1), now + second), None, "it has ended");
        backoffs.succeeded("a");
        assert_eq!(backoffs.held(&attempt("a", "1", 1), now), None);
    }

    #[test]
    fn backoff_of_an_object_that_is_not_desired_any_more_is_dropped() {
        let (mut backoffs, now) = (Backoffs::default(), Instant::now());
        backoffs.failed(attempt("a", "1", 1), ReconcileError::Contested("refused".into()), wait, now);
        let now = now + Duration::from_secs(10);
        assert_eq!(backoffs.pruned(now).next_attempt(now), None);
    }
}
