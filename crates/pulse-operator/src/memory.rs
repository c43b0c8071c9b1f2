//! State of an object between reconciles. All of it can be lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pulse_crd::PulseIngestStatus;
use pulse_reconcile::apply_memory::ApplyMemory;
use pulse_reconcile::plan::ReconcilePlan;
use pulse_reconcile::rollout::Rollouts;
use pulse_reconcile::secret_reads::SecretReads;
use pulse_reconcile::workers;

use crate::decisions_writer::WrittenDecisions;
use crate::job_rejections::JobRejections;

/// State of an object between reconciles.
#[derive(Default)]
pub(crate) struct ObjectMemory {
    /// The status that was written last, with its resource version. The cache may be older.
    pub(crate) written: Option<(u64, PulseIngestStatus)>,
    /// What was applied before, and what failed.
    pub(crate) applied: Arc<ApplyMemory>,
    /// Results of reading the Secrets.
    pub(crate) secrets: Option<SecretReads>,
    /// Why the pods of the migration Jobs are rejected.
    pub(crate) job_rejections: JobRejections,
    missing_since: Option<Instant>,
    /// The rollouts that were complete.
    pub(crate) rollouts: Rollouts,
    /// State of the scaler.
    pub(crate) workers: workers::ScalingMemory,
    /// The decisions that were written for the console.
    pub(crate) decisions: WrittenDecisions,
    /// Number of consecutive reconciles that failed.
    pub(crate) failures: u32,
    /// The other operator that reconciles the object, once it was reported.
    pub(crate) other_operator: Option<String>,
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
