//! The dominance of causes, and what the real servers cannot show in seconds.

use chrono::{DateTime, TimeDelta, Utc};
use pulse_core::{Attempt, FailureReason};
use pulse_queue::{ConsumerFacts, EntryFacts, QueueFacts};
use pulse_store::{InstanceFacts, LeasedFacts, Pause, TaskFacts, TaskStatus, UserBacklog};
use uuid::Uuid;

use crate::{Cause, Facts, explain, timeline};

const WORKER: &str = "host.0123456789ab";

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("a time")
}

fn status() -> TaskStatus {
    TaskStatus {
        id: Uuid::nil(),
        user_id: 1,
        kind: "process_event".into(),
        state: "pending".into(),
        event_ids: vec![7],
        attempts: 0,
        max_attempts: Some(3),
        errors: Vec::new().into(),
        created_at: at(-60),
        started_at: None,
        settled_at: None,
        next_run_at: Some(at(-60)),
        enqueued_at: Some(at(-60)),
        lease_until: None,
        worker: None,
        parent_id: None,
        children: None,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        request_id: Some("r-1".into()),
    }
}

/// A pending task, a minute old, with one idle worker and a scheduler.
fn facts() -> Facts {
    Facts {
        task: TaskFacts {
            task: status(),
            now: at(0),
            user: Some("ada".into()),
            user_disabled_at: None,
            crashed: false,
            events: Vec::new(),
            lock: None,
        },
        instance: InstanceFacts {
            scheduler_until: Some(at(8)),
            jobs: Vec::new(),
            sessions: vec!["pulse why".into(), "pulse worker 0123456789ab".into()],
            leased: Vec::new(),
            before: Vec::new(),
        },
        queue: Ok(QueueFacts {
            entry: EntryFacts::Undelivered { bulk: false },
            undelivered: 1,
            consumers: vec![ConsumerFacts { worker: WORKER.into(), in_flight: 0, idle_ms: 900 }],
            user_is_deep: false,
            is_full: false,
        }),
        pause: None,
        child: None,
    }
}

fn cause(change: impl FnOnce(&mut Facts)) -> Cause {
    let mut facts = facts();
    change(&mut facts);
    explain(&facts).reason.cause
}

fn retrying(facts: &mut Facts) {
    let task = &mut facts.task.task;
    let failed = Attempt { attempt: 1, at: at(-2), reason: FailureReason::Error, error: "no route.\nsee log".into() };
    (task.state, task.attempts, task.errors) = ("retrying".into(), 1, vec![failed].into());
    (task.next_run_at, task.enqueued_at) = (Some(at(42)), None);
}

fn running(facts: &mut Facts, lease_left: i64) {
    let task = &mut facts.task.task;
    (task.state, task.attempts, task.worker) = ("running".into(), 1, Some(WORKER.into()));
    (task.started_at, task.lease_until, task.next_run_at) = (Some(at(-20)), Some(at(lease_left)), None);
    facts.instance.leased = vec![LeasedFacts {
        worker: WORKER.into(),
        tasks: 1,
        oldest_claim: at(-20),
        newest_claim: at(-20),
        lease_until: at(lease_left),
    }];
    for consumer in facts.queue.iter_mut().flat_map(|queue| &mut queue.consumers) {
        consumer.idle_ms = 20_000;
    }
}

#[test]
fn healthy_task_is_in_line() {
    assert_eq!(cause(|_| {}), Cause::InLine);
}

#[test]
fn retry_says_when_and_after_which_error() {
    let mut facts = facts();
    retrying(&mut facts);
    let explanation = explain(&facts);
    assert_eq!(
        explanation.reason.sentence,
        "It runs again at 22:14:02 UTC, in 42 s: attempt 1 of 3 failed (error): no route. see log."
    );
}

#[test]
fn pause_dominates_everything_and_is_said_with_its_reason() {
    let pause = Pause { paused_at: at(-30), actor: "root".into(), reason: Some("migration of the shop".into()) };
    let mut facts = facts();
    retrying(&mut facts);
    facts.pause = Some(pause);
    facts.instance.sessions.pop();
    let explanation = explain(&facts);
    assert_eq!(explanation.reason.sentence, "root paused all claims at 22:12:50 UTC: migration of the shop.");
    let also: Vec<Cause> = explanation.also.iter().map(|reason| reason.cause).collect();
    assert_eq!(also, [Cause::NoWorker, Cause::Backoff]);
}

#[test]
fn missed_heartbeats_and_sessions_tell_apart_busy_stopped_and_dead_workers() {
    assert_eq!(cause(|facts| running(facts, 25)), Cause::Running);
    assert_eq!(cause(|facts| running(facts, 10)), Cause::WorkerStopped);
    let without_session = |facts: &mut Facts| {
        running(facts, 25);
        facts.instance.sessions = vec!["pulse why".into(), "pulse worker ffffffffffff".into()];
    };
    assert_eq!(cause(without_session), Cause::LeaseNotExpired);
    // A pooler hides the sessions: only missed heartbeats count.
    let hidden = |facts: &mut Facts, left| {
        running(facts, left);
        facts.instance.sessions.clear();
    };
    assert_eq!(cause(|facts| hidden(facts, 25)), Cause::Running);
    assert_eq!(cause(|facts| hidden(facts, 10)), Cause::NoWorker);
}

#[test]
fn retry_that_is_due_needs_a_scheduler_only_while_deliveries_keep_workers_busy() {
    let without_scheduler = |facts: &mut Facts, undelivered| {
        retrying(facts);
        facts.task.task.next_run_at = Some(at(-1));
        facts.instance.scheduler_until = None;
        for queue in facts.queue.iter_mut() {
            (queue.undelivered, queue.entry) = (undelivered, EntryFacts::NotEnqueued);
        }
    };
    assert_eq!(cause(|facts| without_scheduler(facts, 5)), Cause::SchedulerStopped);
    assert_eq!(cause(|facts| without_scheduler(facts, 0)), Cause::InLine);
}

#[test]
fn backlog_of_several_users_is_no_neighbour() {
    let user = |user_id, tasks, total| UserBacklog { user_id, user: Some(format!("u{user_id}")), tasks, total };
    assert_eq!(cause(|facts| facts.instance.before = vec![user(2, 30, 35), user(3, 5, 35)]), Cause::Neighbour);
    assert_eq!(cause(|facts| facts.instance.before = vec![user(1, 30, 35), user(3, 5, 35)]), Cause::OwnBacklog);
    assert_eq!(
        cause(|facts| facts.instance.before = vec![user(2, 10, 28), user(3, 9, 28), user(4, 9, 28)]),
        Cause::Backlog
    );
    // The many users with few tasks each are not listed.
    assert_eq!(cause(|facts| facts.instance.before = vec![user(2, 30, 5000)]), Cause::Backlog);
    assert_eq!(cause(|facts| facts.instance.before = vec![user(2, 3, 3)]), Cause::InLine);
}

#[test]
fn batch_takes_the_sentence_of_its_child() {
    let mut batch = facts();
    let mut child = facts();
    retrying(&mut child);
    batch.task.task.event_ids = vec![7, 8, 9];
    batch.task.task.children = Some(vec![Uuid::nil()]);
    batch.child = Some(Box::new(child));
    let explanation = explain(&batch);
    assert_eq!((explanation.reason.cause, explanation.also[0].cause), (Cause::Child, Cause::Backoff));
    assert!(explanation.reason.sentence.contains("1 of its 3 events failed and has a task"), "{explanation:?}");
}

#[test]
fn user_of_a_task_reads_no_name_of_another() {
    let mut neighbour = facts();
    neighbour.instance.before = vec![UserBacklog { user_id: 2, user: Some("bob".into()), tasks: 50, total: 60 }];
    assert!(explain(&neighbour).reason.sentence.contains("bob"));
    assert!(!explain(&neighbour).sentence_for_user().contains("bob"));
    let mut batch = facts();
    batch.task.task.children = Some(vec![Uuid::nil()]);
    batch.child = Some(Box::new(neighbour));
    assert!(explain(&batch).reason.sentence.contains("bob"));
    assert!(!explain(&batch).sentence_for_user().contains("bob"));
    let mut own = facts();
    retrying(&mut own);
    assert_eq!(explain(&own).sentence_for_user(), explain(&own).reason.sentence);
}

#[test]
fn timeline_is_ordered_and_has_the_ids_of_request_and_trace() {
    let mut facts = facts();
    retrying(&mut facts);
    facts.task.task.started_at = Some(at(-5));
    let timeline = timeline(&facts);
    assert_eq!(timeline.trace_id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    let kinds: Vec<&str> = timeline.steps.iter().map(|step| step.kind.as_str()).collect();
    assert_eq!(kinds, ["request", "accepted", "claimed", "failed", "next run"]);
    assert!(timeline.steps.windows(2).all(|pair| pair[1].at - pair[0].at >= TimeDelta::zero()));
}
