//! What was applied for one instance between reconciles.

use std::time::{Duration, Instant};

use crate::backoff::Backoffs;
use crate::compare::AppliedCache;
use crate::fights::Fights;

/// What was applied for one instance, and what failed.
#[derive(Debug, Clone, Default)]
pub struct ApplyMemory {
    /// Hashes of the applied objects.
    pub cache: AppliedCache,
    /// Back-offs after errors, per object.
    pub backoffs: Backoffs,
    /// Objects that others change again and again.
    pub fights: Fights,
}

impl ApplyMemory {
    /// The memory at the end of the reconcile that began at `now`, without what is over.
    #[must_use]
    pub fn pruned(self, now: Instant) -> Self {
        Self { backoffs: self.backoffs.pruned(now), fights: self.fights.pruned(now), ..self }
    }

    /// Whether an object could not be applied, and waits for its next attempt.
    pub fn has_failures(&self) -> bool {
        self.backoffs.has_failures()
    }

    /// Time until an object may be tried again.
    pub fn next_attempt(&self, now: Instant) -> Option<Duration> {
        [self.backoffs.next_attempt(now), self.fights.next_attempt(now)].into_iter().flatten().min()
    }
}
