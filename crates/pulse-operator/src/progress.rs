//! Progress of the watches: recorded by the watches and the client, read by the liveness probe and the metrics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time of the last progress of each watch, by kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchProgress(Arc<Mutex<HashMap<String, Instant>>>);

impl WatchProgress {
    /// Records progress of the watch of `kind`: a response or an event.
    pub(crate) fn record(&self, kind: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(kind.to_owned(), Instant::now());
    }

    /// Time since the last progress of each kind.
    pub(crate) fn ages(&self) -> Vec<(String, Duration)> {
        let progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.iter().map(|(kind, at)| (kind.clone(), at.elapsed())).collect()
    }

    /// The kind whose last progress is the longest ago.
    pub(crate) fn oldest(&self) -> Option<(String, Duration)> {
        self.ages().into_iter().max_by_key(|(_, age)| *age)
    }
}
