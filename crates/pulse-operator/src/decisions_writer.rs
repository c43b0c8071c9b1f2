//! Writes the decisions for the console when one has changed.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use pulse_reconcile::compare::hash;
use pulse_reconcile::unapplied::Unapplied;

use crate::apply::Applier;

/// Time after which the ConfigMap is read again, because another client may have changed or deleted it.
const CHECK: Duration = Duration::from_secs(300);

/// What was written last, and what kept it from being written. Can be lost.
#[derive(Debug, Default)]
pub(crate) struct WrittenDecisions {
    /// Hash of the ConfigMap, and when it was written or found.
    last: Option<(String, Instant)>,
    failure: Option<Unapplied>,
}

impl WrittenDecisions {
    /// Why they could not be written last time.
    pub(crate) fn failure(&self) -> Option<&Unapplied> {
        self.failure.as_ref()
    }

    /// Writes the decisions, unless they are those that were written last; `None` without a console. Returns whether the
    /// status has to be computed again, because it became possible or impossible.
    pub(crate) async fn write(&mut self, applier: &Applier<'_>, decisions: Option<ConfigMap>) -> bool {
        let had_failed = self.failure.is_some();
        let Some(desired) = decisions else {
            *self = Self::default();
            return had_failed;
        };
        let hash = hash(&serde_json::to_value(&desired).unwrap_or_default());
        let is_current = |(last, at): &(String, Instant)| *last == hash && at.elapsed() < CHECK;
        if self.last.as_ref().is_some_and(is_current) {
            return false;
        }
        let result = applier.write_decisions(desired).await;
        self.last = result.is_ok().then(|| (hash, Instant::now()));
        self.failure = result.err().map(|error| error.unapplied());
        had_failed != self.failure.is_some()
    }
}
