//! Whether the watches work: told by whoever reads one, asked by the probe and the metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// When each kind of watch was last known to work.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchProgress(Arc<Mutex<HashMap<String, Instant>>>);

impl WatchProgress {
    /// A watch of `kind` was answered, or brought something.
    pub(crate) fn turned(&self, kind: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(kind.to_owned(), Instant::now());
    }

    /// Each kind, and for how long it has been silent.
    pub(crate) fn ages(&self) -> Vec<(String, Duration)> {
        let turned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turned.iter().map(|(kind, at)| (kind.clone(), at.elapsed())).collect()
    }

    /// The kind that has been silent for longest.
    pub(crate) fn oldest(&self) -> Option<(String, Duration)> {
        self.ages().into_iter().max_by_key(|(_, age)| *age)
    }
}
