//! What is remembered of an object between reconciles, and how long a failure keeps anything from being applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apply::ApplyError;
use crate::compare::AppliedCache;
use crate::controller::Intervals;
use crate::crd::{PulseIngest, PulseIngestStatus, SecretKey};
use crate::names;
use crate::plan::ReconcilePlan;
use crate::secrets::SecretRead;
use crate::status::ReconcileError;
use crate::workers;

/// What is remembered of an object from one round to the next. All of it may be lost.
#[derive(Default)]
pub(crate) struct ObjectMemory {
    /// The status that we wrote last, and the version that it made: the cache may be older.
    pub(crate) written: Option<(u64, PulseIngestStatus)>,
    /// What was applied.
    pub(crate) applied: Arc<AppliedCache>,
    /// The Secrets, when they were read, and for which generation.
    pub(crate) secrets: Option<(Instant, Option<i64>, BTreeMap<SecretKey, SecretRead>)>,
    missing_since: Option<Instant>,
    /// Nothing is applied for now.
    pub(crate) held: Option<ApplyBackoff>,
    /// How the number of workers came about.
    pub(crate) workers: workers::ScalingMemory,
    /// Rounds in a row that failed.
    pub(crate) failures: u32,
}

/// Applying failed: until a time, or until the spec changes, only looking and scaling go on.
pub(crate) struct ApplyBackoff {
    until: Instant,
    generation: Option<i64>,
    failures: u32,
    pub(crate) obstacle: ReconcileError,
}

impl ApplyBackoff {
    /// Whether it still does.
    pub(crate) fn holds(&self, cr: &PulseIngest) -> bool {
        self.generation == cr.metadata.generation && Instant::now() < self.until
    }

    /// How long it still does.
    pub(crate) fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl ObjectMemory {
    /// Remembers what went wrong, and for how long nothing is applied.
    pub(crate) fn hold(&mut self, cr: &PulseIngest, intervals: &Intervals, error: &ApplyError) -> ReconcileError {
        let obstacle = match error {
            ApplyError::Conflict { .. } => ReconcileError::NameConflict(error.to_string()),
            ApplyError::Leftover { .. } | ApplyError::Api { .. } => ReconcileError::Error(error.to_string()),
        };
        let generation = cr.metadata.generation;
        let failures = self.held.as_ref().filter(|held| held.generation == generation).map_or(0, |held| held.failures);
        let wait = intervals.after(failures);
        tracing::warn!(object = names::instance_id(cr), wait_ms = wait.as_millis() as u64, %error, "not applied");
        let until = Instant::now() + jittered(wait);
        self.held = Some(ApplyBackoff { until, generation, failures: failures + 1, obstacle: obstacle.clone() });
        obstacle
    }

    /// For how long a reference has been missing.
    pub(crate) fn missing_for(&mut self, plan: &ReconcilePlan) -> Option<Duration> {
        if plan.missing.is_empty() {
            self.missing_since = None;
            return None;
        }
        Some(self.missing_since.get_or_insert_with(Instant::now).elapsed())
    }
}

/// A tenth more or less, so that many objects do not come at once.
pub(crate) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.9..1.1))
}
