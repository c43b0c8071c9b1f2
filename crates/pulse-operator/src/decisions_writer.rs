//! Writes the decisions for the console when one has changed.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use pulse_reconcile::compare::hash;
use pulse_reconcile::memory::WrittenDecisions;

use crate::apply::Applier;

/// Time after which the ConfigMap is read again, because another client may have changed or deleted it.
const CHECK: Duration = Duration::from_secs(300);

/// Writes the decisions, unless they are those that were written `before`; `None` without a console.
pub(crate) async fn write(
    applier: &Applier<'_>,
    desired: Option<ConfigMap>,
    before: WrittenDecisions,
) -> WrittenDecisions {
    let Some(desired) = desired else { return WrittenDecisions::default() };
    let hash = hash(&serde_json::to_value(&desired).unwrap_or_default());
    let is_current = |(last, at): &(String, Instant)| *last == hash && at.elapsed() < CHECK;
    if before.last.as_ref().is_some_and(is_current) {
        return before;
    }
    let result = applier.write_decisions(desired).await;
    WrittenDecisions { last: result.is_ok().then(|| (hash, Instant::now())), failure: result.err() }
}
