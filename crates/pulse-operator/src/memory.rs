//! State of an object between reconciles. All of it can be lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backoff::Backoffs;
use crate::compare::AppliedCache;
use crate::crd::PulseIngestStatus;
use crate::fights::Fights;
use crate::plan::ReconcilePlan;
use crate::rollout::Rollouts;
use crate::secret_reads::SecretReads;
use crate::workers;

/// State of an object between reconciles.
#[derive(Default)]
pub(crate) struct ObjectMemory {
    /// The status that was written last, with its resource version. The cache may be older.
    pub(crate) written: Option<(u64, PulseIngestStatus)>,
    /// What was applied before, and what failed.
    pub(crate) applied: Arc<ApplyMemory>,
    /// Results of reading the Secrets.
    pub(crate) secrets: Option<SecretReads>,
    missing_since: Option<Instant>,
    /// The rollouts that were complete.
    pub(crate) rollouts: Rollouts,
    /// State of the scaler.
    pub(crate) workers: workers::ScalingMemory,
    /// Number of consecutive reconciles that failed.
    pub(crate) failures: u32,
    /// The other operator that reconciles the object, once it was reported.
    pub(crate) other_operator: Option<String>,
}

/// What was applied for one instance, and what failed.
#[derive(Default)]
pub(crate) struct ApplyMemory {
    /// Hashes of the applied objects.
    pub(crate) cache: AppliedCache,
    /// Back-offs after errors, per object.
    pub(crate) backoffs: Backoffs,
    /// Objects that others change again and again.
    pub(crate) fights: Fights,
}

impl ApplyMemory {
    /// Time until an object may be tried again. Call it at the end of the reconcile that began at `now`.
    pub(crate) fn next_attempt(&self, now: Instant) -> Option<Duration> {
        [self.backoffs.next_attempt(now), self.fights.next_attempt(now)].into_iter().flatten().min()
    }
}

impl ObjectMemory {
    /// Returns the time for which a reference has been missing, or `None` if all exist.
    pub(crate) fn missing_duration(&mut self, plan: &ReconcilePlan) -> Option<Duration> {
        if plan.missing.is_empty() {
            self.missing_since = None;
            return None;
        }
        Some(self.missing_since.get_or_insert_with(Instant::now).elapsed())
    }
}
