//! Why Kubernetes rejects the pods of migration Jobs: unlike a Deployment, a Job says it in Events only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube_core::ResourceExt;

use crate::intervals::Intervals;
use crate::now::Now;
use crate::observed::{Observed, lacks_pods};

/// The rejections of the Jobs of one object, and when each was read. The key is the name of the Job.
#[derive(Debug, Clone, Default)]
pub struct JobRejections(BTreeMap<String, (Instant, Option<String>)>);

impl JobRejections {
    /// Those of Jobs that still have no pods.
    pub fn of(&self, observed: &Observed) -> Self {
        let is_lacking =
            |name: &str| observed.jobs.iter().any(|job| job.name_any() == name && lacks_pods(job, observed));
        Self(
            self.0
                .iter()
                .filter(|(name, _)| is_lacking(name))
                .map(|(name, read)| (name.clone(), read.clone()))
                .collect(),
        )
    }

    /// The Jobs whose Events are to be read. A new Job gets some time to start its pods.
    pub fn due(&self, observed: &Observed, intervals: &Intervals, now: Now) -> Vec<Arc<Job>> {
        let is_known = |job: &Job| {
            let read = self.0.get(&job.name_any());
            read.is_some_and(|(at, _)| now.instant.saturating_duration_since(*at) < intervals.missing)
        };
        let is_due =
            |job: &Job| lacks_pods(job, observed) && age(job, now.clock) >= intervals.missing && !is_known(job);
        observed.jobs.iter().filter(|job| is_due(job)).cloned().collect()
    }

    /// Adds what was read at `at`. What cannot be read is not reported.
    #[must_use]
    pub fn with(mut self, job: &Job, at: Instant, rejection: Option<String>) -> Self {
        self.0.insert(job.name_any(), (at, rejection));
        self
    }

    /// The rejections, by the name of the Job.
    pub fn texts(&self) -> BTreeMap<String, String> {
        self.0.iter().filter_map(|(name, (_, note))| Some((name.clone(), note.clone()?))).collect()
    }
}

fn age(job: &Job, now: Timestamp) -> Duration {
    let created = job.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0);
    Duration::try_from(now.duration_since(created)).unwrap_or_default()
}
