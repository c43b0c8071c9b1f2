//! The keys that a source has read.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::tokens::key_set::KeySet;

/// What a source knows at one time.
#[derive(Clone, Default)]
pub(crate) struct Loaded {
    /// The keys with the time when they were read; `None` before the first success.
    keys: Option<(Arc<KeySet>, Instant)>,
    /// Number of attempts to read them.
    pub(crate) attempts: u64,
    /// Why the last attempt failed.
    pub(crate) problem: Option<String>,
}

impl Loaded {
    /// Notes the outcome of an attempt. Keys stay after a failed one.
    pub(crate) fn note(&mut self, outcome: Result<KeySet, String>) {
        self.attempts += 1;
        match outcome {
            Ok(keys) => (self.keys, self.problem) = (Some((Arc::new(keys), Instant::now())), None),
            Err(problem) => self.problem = Some(problem),
        }
    }

    /// The keys, unless they were read longer ago than `max_age`.
    pub(crate) fn keys(&self, max_age: Option<Duration>) -> Option<Arc<KeySet>> {
        let (keys, read_at) = self.keys.as_ref()?;
        max_age.is_none_or(|max_age| read_at.elapsed() <= max_age).then(|| keys.clone())
    }
}
