//! What is remembered of an object between rounds, and how long a failure keeps anything from being applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apply::ApplyError;
use crate::compare::Memory;
use crate::controller::Intervals;
use crate::crd::{PulseIngest, PulseIngestStatus, SecretKey};
use crate::names;
use crate::plan::Plan;
use crate::secrets::Reading;
use crate::status::Obstacle;
use crate::workers;

/// What is remembered of an object from one round to the next. All of it may be lost.
#[derive(Default)]
pub(crate) struct Remembered {
    /// The status that we wrote last, and the version that it made: the cache may be older.
    pub(crate) written: Option<(u64, PulseIngestStatus)>,
    /// What was applied.
    pub(crate) applied: Arc<Memory>,
    /// The Secrets, when they were read, and for which generation.
    pub(crate) secrets: Option<(Instant, Option<i64>, BTreeMap<SecretKey, Reading>)>,
    missing_since: Option<Instant>,
    /// Nothing is applied for now.
    pub(crate) held: Option<Held>,
    /// How the number of workers came about.
    pub(crate) workers: workers::Remembered,
    /// Rounds in a row that failed.
    pub(crate) failures: u32,
}

/// Applying failed: until a time, or until the spec changes, only looking and scaling go on.
pub(crate) struct Held {
    until: Instant,
    generation: Option<i64>,
    failures: u32,
    pub(crate) obstacle: Obstacle,
}

impl Held {
    /// Whether it still does.
    pub(crate) fn holds(&self, cr: &PulseIngest) -> bool {
        self.generation == cr.metadata.generation && Instant::now() < self.until
    }

    /// How long it still does.
    pub(crate) fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl Remembered {
    /// Remembers what went wrong, and for how long nothing is applied.
    pub(crate) fn hold(&mut self, cr: &PulseIngest, intervals: &Intervals, error: &ApplyError) -> Obstacle {
        let obstacle = match error {
            ApplyError::Conflict { .. } => Obstacle::NameConflict(error.to_string()),
            ApplyError::Leftover { .. } | ApplyError::Api { .. } => Obstacle::Error(error.to_string()),
        };
        let generation = cr.metadata.generation;
        let failures = self.held.as_ref().filter(|held| held.generation == generation).map_or(0, |held| held.failures);
        let wait = intervals.after(failures);
        tracing::warn!(object = names::ingest(cr), wait_ms = wait.as_millis() as u64, %error, "not applied");
        let until = Instant::now() + jittered(wait);
        self.held = Some(Held { until, generation, failures: failures + 1, obstacle: obstacle.clone() });
        obstacle
    }

    /// For how long a reference has been missing.
    pub(crate) fn missing_for(&mut self, plan: &Plan) -> Option<Duration> {
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
