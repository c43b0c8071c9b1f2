//! What Redis answers to the commands of this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::QueueError;

/// Age from which a refusal no longer counts. A role repeats its commands within seconds; an idle API does not, and the
/// cause may be gone.
const MAX_AGE: Duration = Duration::from_mins(1);

/// The commands that Redis refused, each until it succeeds again. Cheap to clone.
///
/// `INFO` and `PING` succeed on a Redis that is full, a read-only replica, or forbids the keys. Only the commands in use
/// show that.
#[derive(Clone, Default)]
pub struct RedisHealth(Arc<Mutex<BTreeMap<String, Refused>>>);

struct Refused {
    reason: String,
    at: Instant,
}

impl RedisHealth {
    /// Records the outcome of a command. A lost connection changes nothing: a probe connects by itself.
    pub(crate) fn record<T>(&self, command: impl FnOnce() -> String, result: &Result<T, QueueError>) {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(error) if error.refusal().is_some() => {
                refused.insert(command(), Refused { reason: error.to_string(), at: Instant::now() });
            }
            Err(error) if !error.is_answer() => {}
            _ if refused.is_empty() => {}
            // Also an error of normal operation, such as a group that exists already.
            _ => drop(refused.remove(&command())),
        }
    }

    /// Why Redis refused a command of this process in the last minute, or `None` if it refused none.
    pub fn problem(&self) -> Option<String> {
        self.problem_at(Instant::now())
    }

    fn problem_at(&self, now: Instant) -> Option<String> {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, refused| now.saturating_duration_since(refused.at) < MAX_AGE);
        let (command, Refused { reason, .. }) = refused.iter().max_by_key(|(_, refused)| refused.at)?;
        Some(format!("{command}: {reason}"))
    }
}

/// The name of a command; its arguments may be personal data.
pub(crate) fn name(command: &redis::Cmd) -> String {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use redis::{ErrorKind, ServerErrorKind};

    use super::*;

    fn refusal() -> Result<(), QueueError> {
        Err(QueueError::Unavailable((ErrorKind::Server(ServerErrorKind::ReadOnly), "read only").into()))
    }

    #[test]
    fn refused_command_is_a_problem_until_it_succeeds() {
        let health = RedisHealth::default();
        health.record(|| "XADD".into(), &refusal());
        health.record(|| "XLEN".into(), &Ok(()));
        assert!(health.problem().is_some_and(|problem| problem.contains("XADD: Redis is a read-only replica")));
        health.record(|| "XADD".into(), &Err::<(), _>(QueueError::TimedOut));
        assert!(health.problem().is_some());
        health.record(|| "XADD".into(), &Err::<(), _>(QueueError::NoGroup));
        assert_eq!(health.problem(), None);
        health.record(|| "XADD".into(), &refusal());
        health.record(|| "XADD".into(), &Ok(()));
        assert_eq!(health.problem(), None);
    }

    #[test]
    fn refusal_is_forgotten_after_a_minute() {
        let health = RedisHealth::default();
        health.record(|| "XADD".into(), &refusal());
        assert_eq!(health.problem_at(Instant::now() + MAX_AGE), None);
    }
}
