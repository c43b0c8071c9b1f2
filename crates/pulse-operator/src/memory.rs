//! State of an object between reconciles, and the backoff after an apply that failed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apply::ApplyError;
use crate::compare::AppliedCache;
use crate::crd::{PulseIngest, PulseIngestStatus, SecretKey};
use crate::intervals::Intervals;
use crate::names;
use crate::plan::ReconcilePlan;
use crate::rollout::Rollouts;
use crate::secrets::SecretRead;
use crate::status::ReconcileError;
use crate::workers;

/// State of an object between reconciles. All of it can be lost.
#[derive(Default)]
pub(crate) struct ObjectMemory {
    /// The status that was written last, with its resource version. The cache may be older.
    pub(crate) written: Option<(u64, PulseIngestStatus)>,
    /// Hashes of the applied objects.
    pub(crate) applied: Arc<AppliedCache>,
    /// Results of reading the Secrets, with the time and the generation at which they were read.
    pub(crate) secrets: Option<(Instant, Option<i64>, BTreeMap<SecretKey, SecretRead>)>,
    missing_since: Option<Instant>,
    /// Set after an apply that failed: nothing is applied until it ends.
    pub(crate) backoff: Option<ApplyBackoff>,
    /// The rollouts that were complete.
    pub(crate) rollouts: Rollouts,
    /// State of the scaler.
    pub(crate) workers: workers::ScalingMemory,
    /// Number of consecutive reconciles that failed.
    pub(crate) failures: u32,
}

/// Backoff after an apply that failed. Until it ends or the spec changes, reconciles only observe and scale.
pub(crate) struct ApplyBackoff {
    until: Instant,
    generation: Option<i64>,
    failures: u32,
    pub(crate) failure: ReconcileError,
}

impl ApplyBackoff {
    /// Reports whether the backoff applies to this generation and has not ended.
    pub(crate) fn is_active(&self, cr: &PulseIngest) -> bool {
        self.generation == cr.metadata.generation && Instant::now() < self.until
    }

    /// Returns the time until the backoff ends.
    pub(crate) fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl ObjectMemory {
    /// Starts the backoff after an error. It grows with each consecutive failure of the same generation.
    pub(crate) fn start_backoff(
        &mut self,
        cr: &PulseIngest,
        intervals: &Intervals,
        error: &ApplyError,
    ) -> ReconcileError {
        let failure = match error {
            ApplyError::Conflict { .. } => ReconcileError::NameConflict(error.to_string()),
            ApplyError::PredecessorTerminating { .. } | ApplyError::Api { .. } => {
                ReconcileError::Error(error.to_string())
            }
        };
        let generation = cr.metadata.generation;
        let previous = self.backoff.as_ref().filter(|backoff| backoff.generation == generation);
        let failures = previous.map_or(0, |backoff| backoff.failures);
        let wait = intervals.after(failures);
        let object = names::instance_id(cr);
        tracing::warn!(object, wait_ms = wait.as_millis() as u64, %error, "cannot apply objects: retrying later");
        let until = Instant::now() + jittered(wait);
        self.backoff = Some(ApplyBackoff { until, generation, failures: failures + 1, failure: failure.clone() });
        failure
    }

    /// Returns the time for which a reference has been missing, or `None` if all exist.
    pub(crate) fn missing_duration(&mut self, plan: &ReconcilePlan) -> Option<Duration> {
        if plan.missing.is_empty() {
            self.missing_since = None;
            return None;
        }
        Some(self.missing_since.get_or_insert_with(Instant::now).elapsed())
    }
}

/// Adds or subtracts up to 10%, so that objects are not reconciled at the same time.
pub(crate) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.9..1.1))
}
