//! Why Kubernetes rejects the pods of migration Jobs: unlike a Deployment, a Job says it in Events only.
//!
//! The API server searches all Events of a namespace for those of one Job, so the reads of all objects share a budget.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use pulse_reconcile::intervals::Intervals;
use pulse_reconcile::observed::{self, Observed};

/// Maximum number of Events of a Job that are read. Kubernetes counts repeated ones in one Event.
const MAX_EVENTS: u32 = 10;

/// Time between two reads of Events, for all objects together.
const TIME_PER_READ: Duration = Duration::from_millis(500);

/// Grants the reads of Events.
#[derive(Default)]
pub(crate) struct EventBudget(Mutex<Option<Instant>>);

impl EventBudget {
    /// Whether Events may be read at `now`.
    fn take(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = last.is_none_or(|last| now.duration_since(last) >= TIME_PER_READ);
        if granted {
            *last = Some(now);
        }
        granted
    }
}

/// The rejections of the Jobs of one object, and when each was read. The key is the name of the Job.
#[derive(Default)]
pub(crate) struct JobRejections(BTreeMap<String, (Instant, Option<String>)>);

impl JobRejections {
    /// Returns why Kubernetes rejects the pods, for each Job that has none. A new Job gets some time to start them. What
    /// cannot be read is not reported.
    pub(crate) async fn read(
        &mut self,
        client: &Client,
        observed: &Observed,
        budget: &EventBudget,
        intervals: &Intervals,
        now: Timestamp,
    ) -> BTreeMap<String, String> {
        let lacking: Vec<_> = observed.jobs.iter().filter(|job| observed::lacks_pods(job, observed)).collect();
        self.0.retain(|name, _| lacking.iter().any(|job| job.name_any() == *name));
        for job in lacking.into_iter().filter(|job| age(job, now) >= intervals.missing) {
            let name = job.name_any();
            let is_known = self.0.get(&name).is_some_and(|(at, _)| at.elapsed() < intervals.missing);
            if !is_known && budget.take(Instant::now()) {
                self.0.insert(name, (Instant::now(), rejection(client, job).await));
            }
        }
        self.0.iter().filter_map(|(name, (_, note))| Some((name.clone(), note.clone()?))).collect()
    }
}

fn age(job: &Job, now: Timestamp) -> Duration {
    let created = job.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0);
    Duration::try_from(now.duration_since(created)).unwrap_or_default()
}

async fn rejection(client: &Client, job: &Job) -> Option<String> {
    let api: Api<Event> = Api::namespaced(client.clone(), &job.namespace().unwrap_or_default());
    let of_job = format!("regarding.kind=Job,regarding.name={},reason=FailedCreate", job.name_any());
    let events = api.list(&ListParams::default().fields(&of_job).limit(MAX_EVENTS)).await.ok()?;
    let is_of_job = |event: &Event| event.regarding.as_ref().is_some_and(|it| it.uid == job.uid());
    events.items.into_iter().filter(is_of_job).filter_map(|event| event.note).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_reads_of_all_objects_share_a_budget() {
        let (budget, start) = (EventBudget::default(), Instant::now());
        let granted = (0..1000).filter(|number| budget.take(start + Duration::from_millis(number * 10))).count();
        assert_eq!(granted, 20, "two per second, for 10 s");
    }
}
