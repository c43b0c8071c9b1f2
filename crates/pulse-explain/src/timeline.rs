//! The chain from the request to the settlement.

use chrono::{DateTime, Utc};
use pulse_store::TaskStatus;
use serde::Serialize;
use uuid::Uuid;

use crate::facts::Facts;
use crate::words::count;

/// What happened to a task, and what is known to happen next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// The request that posted its events.
    pub request_id: Option<String>,
    /// The trace of that request, 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// The `sub` of the user; `None` if the user was deleted.
    pub user: Option<String>,
    /// Ids of its events, in the order of the request.
    pub event_ids: Vec<i64>,
    /// The task.
    pub task_id: Uuid,
    /// Worker of the latest attempt.
    pub worker: Option<String>,
    /// The steps, by time.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its time, by PostgreSQL's clock. That of a wait is in the future.
    pub at: DateTime<Utc>,
    /// What it is.
    pub kind: StepKind,
    /// What happened.
    pub text: String,
}

/// Kind of a step, in the order in which steps of one time happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// The request was received.
    Request,
    /// Events and task were committed.
    Accept,
    /// The task id was put on a stream.
    Enqueue,
    /// A worker took the lease.
    Claim,
    /// An attempt failed.
    Failure,
    /// Completed, dead, cancelled or orphaned.
    Settlement,
    /// The lease ends without a heartbeat.
    LeaseEnd,
    /// The next attempt may begin.
    NextAttempt,
}

impl StepKind {
    /// The word in a table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Accept => "accepted",
            Self::Enqueue => "enqueued",
            Self::Claim => "claimed",
            Self::Failure => "failed",
            Self::Settlement => "settled",
            Self::LeaseEnd => "lease ends",
            Self::NextAttempt => "next run",
        }
    }
}

/// The chain of a task.
#[must_use]
pub fn timeline(facts: &Facts) -> Timeline {
    let task = facts.status();
    let event_name = facts.task.events.first().map(|event| event.event_name.as_str());
    Timeline {
        request_id: task.request_id.clone(),
        trace_id: task.traceparent.as_deref().and_then(|context| context.split('-').nth(1)).map(str::to_owned),
        user: facts.task.user.clone(),
        event_ids: task.event_ids.clone(),
        task_id: task.id,
        worker: task.worker.clone(),
        steps: steps(task, event_name, facts.now()),
    }
}

/// Orders what is known of a task by time. Only the latest claim and the latest enqueueing are known. `event_name` is that of
/// its first event.
#[must_use]
pub fn steps(task: &TaskStatus, event_name: Option<&str>, now: DateTime<Utc>) -> Vec<Step> {
    let step = |at: Option<DateTime<Utc>>, kind, text: String| at.map(|at| Step { at, kind, text });
    let worker = task.worker.as_deref().unwrap_or("unknown");
    let request = task.request_id.as_ref().map(|id| format!("request {id}"));
    let accepted = format!("task {} with {}", task.id, events(task, event_name));
    let mut steps: Vec<Step> = [
        request.and_then(|text| step(Some(task.created_at), StepKind::Request, text)),
        step(Some(task.created_at), StepKind::Accept, accepted),
        step(task.enqueued_at, StepKind::Enqueue, "put on the stream".into()),
        step(task.started_at, StepKind::Claim, format!("by worker {worker}")),
        step(task.settled_at, StepKind::Settlement, settled(task)),
        step(task.lease_until, StepKind::LeaseEnd, format!("of worker {worker}, without a heartbeat")),
        step(task.next_run_at.filter(|at| *at > now), StepKind::NextAttempt, "not before this time".into()),
    ]
    .into_iter()
    .flatten()
    .collect();
    steps.extend(task.errors.iter().map(|failed| Step {
        at: failed.at,
        kind: StepKind::Failure,
        text: format!("attempt {} ({}): {}", failed.attempt, failed.reason.as_str(), failed.error),
    }));
    steps.sort_by_key(|step| (step.at, step.kind));
    steps
}

/// `event 7 (page_view)`, or the number of events of a batch.
fn events(task: &TaskStatus, name: Option<&str>) -> String {
    match (task.event_ids.as_slice(), name) {
        ([id], Some(name)) => format!("event {id} ({name})"),
        ([id], None) => format!("event {id}, which was deleted"),
        (ids, _) => format!("a batch of {}", count(i64::try_from(ids.len()).unwrap_or(i64::MAX), "event")),
    }
}

fn settled(task: &TaskStatus) -> String {
    match &task.children {
        Some(children) => {
            format!("as a batch with {}", count(i64::try_from(children.len()).unwrap_or(i64::MAX), "failed event"))
        }
        None => task.state.clone(),
    }
}
