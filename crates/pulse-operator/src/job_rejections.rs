//! Why Kubernetes rejects the pods of migration Jobs: unlike a Deployment, a Job says it in Events only.
//!
//! The API server searches all Events of a namespace for those of one Job, so the reads of all objects share a budget.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use pulse_reconcile::intervals::Intervals;
use pulse_reconcile::job_rejections::JobRejections;
use pulse_reconcile::now::Now;
use pulse_reconcile::observed::Observed;

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

/// Reads why Kubernetes rejects the pods, for each Job that has none.
pub(crate) async fn read(
    client: &Client,
    budget: &EventBudget,
    before: &JobRejections,
    observed: &Observed,
    intervals: &Intervals,
    now: Now,
) -> JobRejections {
    let mut known = before.of(observed);
    for job in before.due(observed, intervals, now) {
        if budget.take(Instant::now()) {
            known = known.with(&job, Instant::now(), rejection(client, &job).await);
        }
    }
    known
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
