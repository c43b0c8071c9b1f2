//! When the referenced Secrets are read. Least privilege allows `get` only, not a watch, so they are polled.
//!
//! All instances share a budget of reads per second: with many instances, each one is read less often. An instance whose
//! pods are not ready may have a rotated credential, so it is read at the usual interval. A changed spec or annotation
//! is read at once.

use std::collections::BTreeMap;
use std::time::Instant;

use kube_core::ResourceExt;
use pulse_crd::names::REFRESH;
use pulse_crd::{PulseIngest, SecretKey};

use crate::intervals::Intervals;
use crate::observed::Observed;
use crate::pods;
use crate::secret_uses;
use crate::secrets::SecretRead;

/// Results of reading the Secrets of one instance.
#[derive(Debug, Clone)]
pub struct SecretReads {
    at: Instant,
    cause: Cause,
    reads: BTreeMap<SecretKey, SecretRead>,
}

/// What makes the Secrets be read at once when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cause {
    generation: Option<i64>,
    refresh: Option<String>,
}

impl Cause {
    fn of(cr: &PulseIngest) -> Self {
        Self { generation: cr.metadata.generation, refresh: cr.annotations().get(REFRESH).cloned() }
    }
}

impl SecretReads {
    /// Records what was read at `at`.
    pub fn new(cr: &PulseIngest, reads: BTreeMap<SecretKey, SecretRead>, at: Instant) -> Self {
        Self { at, cause: Cause::of(cr), reads }
    }

    /// The results.
    pub fn reads(&self) -> &BTreeMap<SecretKey, SecretRead> {
        &self.reads
    }

    /// Whether they need not be read again yet. `instances` is the number of all instances.
    pub fn is_current(
        &self,
        cr: &PulseIngest,
        observed: &Observed,
        instances: usize,
        intervals: &Intervals,
        now: Instant,
    ) -> bool {
        let referenced = secret_uses::referenced(cr);
        let covers = referenced.iter().all(|key| self.reads.contains_key(key));
        let max_age = if !self.reads.values().all(|read| read.found().is_some()) {
            intervals.missing
        } else if is_in_trouble(observed) {
            intervals.secrets
        } else {
            intervals.secrets_of(instances, referenced.len())
        };
        covers && self.cause == Cause::of(cr) && now.saturating_duration_since(self.at) < max_age
    }
}

fn is_in_trouble(observed: &Observed) -> bool {
    observed
        .pods
        .values()
        .flatten()
        .any(|pod| !pods::is_ready(pod) && !pods::is_terminating(pod) && !pods::is_finished(pod))
}
