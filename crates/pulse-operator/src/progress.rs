//! Progress of the watches: recorded by the watches and the client, read by the liveness probe and the metrics.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time of the last progress of each watch.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchProgress(Arc<Mutex<HashMap<Watch, Instant>>>);

/// A kind and a namespace; no namespace for all of them.
type Watch = (String, Option<String>);

impl WatchProgress {
    /// Records progress of the watch of `kind` in `namespace`: a response or an event.
    pub(crate) fn record(&self, kind: &str, namespace: Option<&str>) {
        let watch = (kind.to_owned(), namespace.map(str::to_owned));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(watch, Instant::now());
    }

    /// Time since the last progress of each kind, in the namespace where it is the longest ago.
    pub(crate) fn ages(&self) -> Vec<(String, Duration)> {
        let mut ages = BTreeMap::new();
        for ((kind, _), at) in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            let age: &mut Duration = ages.entry(kind.clone()).or_default();
            *age = at.elapsed().max(*age);
        }
        ages.into_iter().collect()
    }

    /// The kind whose last progress is the longest ago.
    pub(crate) fn oldest(&self) -> Option<(String, Duration)> {
        self.ages().into_iter().max_by_key(|(_, age)| *age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_watch_of_one_namespace_is_not_hidden_by_another() {
        let progress = WatchProgress::default();
        progress.record("pods", Some("a"));
        let first = Instant::now();
        while first.elapsed() < Duration::from_millis(5) {
            progress.record("pods", Some("b"));
        }
        assert!(progress.oldest().is_some_and(|(_, age)| age >= Duration::from_millis(5)));
    }
}
