//! What became of attempts, by the name of their first event, since the last heartbeat.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pulse_store::{NameFigures, Outcome};

use crate::in_flight::EndedAttempt;

/// Maximum number of names between two heartbeats. The attempts of further ones count as [`OTHER`].
const MAX_NAMES: usize = 50;
/// Stands for all further names, as in `fold_event_names`.
const OTHER: &str = "other";
/// Maximum number of durations of one name between two heartbeats: enough for percentiles.
const MAX_DURATIONS: usize = 1000;

/// Figures by name. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct ByName(Arc<Mutex<HashMap<String, NameFigures>>>);

impl ByName {
    /// Counts a settled attempt.
    pub(crate) fn record(&self, EndedAttempt { task, settlement, .. }: &EndedAttempt) {
        let (completed, retried, dead) = match settlement.outcome {
            Outcome::Completed(_) | Outcome::Split { .. } => (1, 0, 0),
            Outcome::Retry { .. } => (0, 1, 0),
            Outcome::DeadLetter(_) => (0, 0, 1),
            Outcome::Orphaned | Outcome::Release(_) => return,
        };
        let Some(name) = task.event_name.as_deref().filter(|name| !name.is_empty()) else { return };
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if names.len() < MAX_NAMES || names.contains_key(name) { name } else { OTHER };
        let figures = match names.get_mut(name) {
            Some(figures) => figures,
            None => names.entry(name.to_owned()).or_default(),
        };
        figures.completed += completed;
        figures.retried += retried;
        figures.dead += dead;
        if figures.attempt_seconds.len() < MAX_DURATIONS {
            figures.attempt_seconds.extend(settlement.ran.map(|ran| ran.as_secs_f64()));
        }
    }

    /// Takes the figures.
    pub(crate) fn take(&self) -> HashMap<String, NameFigures> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
