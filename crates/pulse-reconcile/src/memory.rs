//! What a reconcile remembers of an object for the next one. All of it can be lost.

use std::time::Instant;

use jiff::Timestamp;
use pulse_crd::PulseIngestStatus;

use crate::apply_memory::ApplyMemory;
use crate::error::ReconcileError;
use crate::job_rejections::JobRejections;
use crate::rollout::Rollouts;
use crate::secret_reads::SecretReads;
use crate::workers::ScalingMemory;

/// State of an object between reconciles. A reconcile takes one and makes the next one.
#[derive(Clone, Default)]
pub struct Memory {
    /// The status that was written last, with its resource version. The cache may be older.
    pub written: Option<(u64, PulseIngestStatus)>,
    /// What was applied before, and what failed.
    pub applied: ApplyMemory,
    /// Results of reading the Secrets.
    pub secrets: Option<SecretReads>,
    /// Why the pods of the migration Jobs are rejected.
    pub job_rejections: JobRejections,
    /// Since when a reference has been missing.
    pub missing_since: Option<Timestamp>,
    /// The rollouts that were complete.
    pub rollouts: Rollouts,
    /// State of the scaler.
    pub workers: ScalingMemory,
    /// The decisions that were written for the console.
    pub decisions: WrittenDecisions,
    /// Number of consecutive reconciles that failed.
    pub failures: u32,
    /// The other operator that reconciles the object, once it was reported.
    pub other_operator: Option<String>,
}

/// The decisions that were written for the console.
#[derive(Debug, Clone, Default)]
pub struct WrittenDecisions {
    /// Hash of the ConfigMap, and when it was written or found.
    pub last: Option<(String, Instant)>,
    /// Why it could not be written last time.
    pub failure: Option<ReconcileError>,
}
