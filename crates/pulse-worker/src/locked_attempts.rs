//! Attempts that cannot be settled, because another transaction has locked a row of their task or events.
//!
//! Such an attempt keeps its outcome for a while, since most locks are short. Then its task is released, which needs only
//! the task's own row, and runs again later: a long lock on many rows must not fill the worker.

use std::time::Duration;

use pulse_store::Outcome;
use tokio::time::Instant;

use crate::in_flight::EndedAttempt;

/// Time between two attempts to settle.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Time for which an outcome is kept.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// Maximum number of outcomes that are kept.
const MAX_KEPT: usize = 32;
/// Time after which a released task runs again.
const RELEASE_DELAY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct LockedAttempts {
    attempts: Vec<EndedAttempt>,
    retry_at: Option<Instant>,
}

impl LockedAttempts {
    pub(crate) fn extend(&mut self, attempts: impl IntoIterator<Item = EndedAttempt>) {
        let now = Instant::now();
        for mut attempt in attempts {
            attempt.locked_since.get_or_insert(now);
            self.attempts.push(attempt);
        }
        if !self.attempts.is_empty() {
            self.retry_at.get_or_insert(now + RETRY_INTERVAL);
        }
        let surplus = self.attempts.len().saturating_sub(MAX_KEPT);
        self.attempts[..surplus].iter_mut().for_each(release);
    }

    /// Waits until the attempts should be settled again; forever if there is none.
    pub(crate) fn retry_time(&self) -> impl Future<Output = ()> + use<> {
        let retry_at = self.retry_at;
        async move {
            match retry_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Takes all attempts. Those that waited for long are released.
    pub(crate) fn take(&mut self) -> Vec<EndedAttempt> {
        self.retry_at = None;
        let mut attempts = std::mem::take(&mut self.attempts);
        attempts.retain(|attempt| !attempt.task.is_superseded());
        let is_old = |attempt: &&mut EndedAttempt| attempt.locked_since.is_some_and(|since| since.elapsed() > KEPT_FOR);
        attempts.iter_mut().filter(is_old).for_each(release);
        attempts
    }

    pub(crate) fn release_all(&mut self) {
        self.attempts.iter_mut().for_each(release);
    }
}

fn release(attempt: &mut EndedAttempt) {
    if !matches!(attempt.settlement.outcome, Outcome::Release(_)) {
        tracing::warn!(
            task_id = %attempt.task.id,
            "cannot settle the task: another transaction has locked its rows; it runs again later"
        );
        attempt.settlement.outcome = Outcome::Release(RELEASE_DELAY);
    }
}
