//! One attempt of a task: runs the processor on its events and decides the outcome.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use pulse_core::{Attempt, ClaimedTask, Event, FailureReason, RetryPolicy, panic_message};
use pulse_store::{Child, ChildState, Effect, Outcome};
use tokio::time::Instant;
use uuid::Uuid;

use crate::processor::{ProcessError, Processor};

/// Maximum length of a stored error message, in characters.
const MAX_ERROR_CHARS: usize = 1000;

/// What an attempt did with the events of its task.
#[derive(Debug, Default)]
pub(crate) struct Results {
    effects: Vec<Effect>,
    /// Position and error of each event that failed.
    failed: Vec<(usize, ProcessError)>,
    /// Number of events whose processing began.
    begun: usize,
}

/// Runs the processor on the events of the task, one after the other. A failed event does not stop the others, but the
/// time-out does: it is that of the attempt.
///
/// Panics are caught. The time-out works only for a processor that yields; the heartbeat finds one that does not.
pub(crate) async fn run(task: &ClaimedTask, processor: &dyn Processor, timeout: Duration) -> Results {
    let deadline = Instant::now() + timeout;
    let mut results = Results::default();
    for (position, event) in task.events.iter().enumerate() {
        results.begun = position + 1;
        let processing = AssertUnwindSafe(processor.process(event)).catch_unwind();
        let error = match tokio::time::timeout_at(deadline, processing).await {
            Ok(Ok(Ok(properties))) => {
                results.effects.push(Effect { event_id: event.id, properties: storable(properties) });
                continue;
            }
            Ok(Ok(Err(error))) => error,
            Ok(Err(panic)) => {
                let message = format!("processing panicked: {}", panic_message(&*panic));
                ProcessError { reason: FailureReason::Panic, message }
            }
            Err(_) => timed_out(timeout),
        };
        let is_timeout = error.reason == FailureReason::Timeout;
        results.failed.push((position, error));
        if is_timeout {
            break;
        }
    }
    results
}

/// Replaces NUL, which PostgreSQL cannot store, with U+FFFD, as in payloads.
fn storable(properties: String) -> String {
    let properties = without_nul(properties);
    match pulse_core::repair(&properties).0 {
        Cow::Borrowed(_) => properties,
        Cow::Owned(repaired) => repaired,
    }
}

fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

pub(crate) fn timed_out(timeout: Duration) -> ProcessError {
    let message = format!("processing took longer than {} s", timeout.as_secs_f64());
    ProcessError { reason: FailureReason::Timeout, message }
}

/// Decides the outcome of an attempt.
///
/// If all events of a batch failed and can be retried, the batch is retried as a whole: their common cause would turn each
/// batch into many tasks.
pub(crate) fn outcome(task: &ClaimedTask, results: Results, policy: &FailurePolicy<'_>) -> Outcome {
    let Results { effects, failed, begun } = results;
    if task.events.is_empty() {
        return Outcome::Orphaned;
    }
    if failed.is_empty() {
        return Outcome::Completed(effects);
    }
    let all_failed = failed.len() == task.events.len();
    let retryable = task.attempt < task.max_attempts && failed.iter().all(|(_, error)| error.reason.is_retryable());
    if all_failed && (task.events.len() == 1 || retryable) {
        let (_, error) = failed.into_iter().next().expect("an event failed");
        return policy.failed(task.attempt, task.max_attempts, error);
    }
    let failures = failed.into_iter().map(|(position, error)| {
        let state = match policy.failed(task.attempt, task.max_attempts, error) {
            Outcome::Retry { delay, attempt } => ChildState::Retry { delay, attempt },
            Outcome::DeadLetter(attempt) => ChildState::Dead(attempt),
            _ => ChildState::Pending,
        };
        (&task.events[position], state)
    });
    let not_begun = task.events[begun..].iter().map(|event| (event, ChildState::Pending));
    let child =
        |(event, state): (&Event, _)| Child { id: Uuid::now_v7(), event_id: event.id, bytes: event.bytes(), state };
    let children = failures.chain(not_begun).map(child).collect();
    Outcome::Split { effects, children }
}

/// What decides between a retry and a dead letter.
pub(crate) struct FailurePolicy<'a> {
    pub(crate) retry: &'a RetryPolicy,
    pub(crate) now: DateTime<Utc>,
    /// Uniform in 0..1.
    pub(crate) random: f64,
}

impl<'a> FailurePolicy<'a> {
    pub(crate) fn now(retry: &'a RetryPolicy) -> Self {
        Self { retry, now: Utc::now(), random: rand::random() }
    }

    /// Returns the outcome of a failed attempt: a retry if the reason is retryable and attempts are left, else dead.
    pub(crate) fn failed(&self, attempt_no: u32, max_attempts: u32, error: ProcessError) -> Outcome {
        let ProcessError { reason, message } = error;
        let error = without_nul(message.chars().take(MAX_ERROR_CHARS).collect());
        let attempt = Attempt { attempt: attempt_no, at: self.now, reason, error };
        if reason.is_retryable() && attempt_no < max_attempts {
            Outcome::Retry { delay: self.retry.delay(attempt_no, self.random), attempt }
        } else {
            Outcome::DeadLetter(attempt)
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use pulse_core::TextFields;

    use super::*;

    const RETRY: RetryPolicy = RetryPolicy { base_seconds: 2.0, cap: Duration::from_secs(60), jitter_percent: 0.0 };

    const POLICY: FailurePolicy<'static> = FailurePolicy { retry: &RETRY, now: DateTime::UNIX_EPOCH, random: 0.5 };

    /// Panics, hangs or fails as the name of the event says.
    struct ScriptedProcessor;

    #[async_trait]
    impl Processor for ScriptedProcessor {
        async fn process(&self, event: &Event) -> Result<String, ProcessError> {
            match event.fields.event_name.as_str() {
                "panic" => panic!("as requested"),
                "hang" => std::future::pending().await,
                "fail" => Err(ProcessError::failed("not now")),
                "invalid" => Err(ProcessError::invalid_payload("bad")),
                "nul" => Ok(r#"{"a":"\u0000","b":"\\u0000"}"#.into()),
                "nul error" => Err(ProcessError::invalid_payload("a\0b")),
                _ => Ok("{}".into()),
            }
        }
    }

    fn task(names: &[&str]) -> ClaimedTask {
        let time = DateTime::UNIX_EPOCH;
        let events = names.iter().zip(1..).map(|(name, id)| Event {
            id,
            task_id: Uuid::nil(),
            user_id: 1,
            fields: TextFields { event_name: (*name).into(), ..TextFields::default() },
            payload: "{}".into(),
            event_timestamp: time,
            created_at: time,
        });
        ClaimedTask {
            id: Uuid::nil(),
            events: events.collect(),
            bytes: 1,
            attempt: 1,
            max_attempts: 3,
            fencing_token: 1,
            created_at: time,
            traceparent: None,
            request_id: None,
        }
    }

    async fn outcome_of(names: &[&str]) -> Outcome {
        let task = task(names);
        let results = run(&task, &ScriptedProcessor, Duration::from_millis(50)).await;
        outcome(&task, results, &POLICY)
    }

    /// The id of the event and the kind of state of each child.
    fn states(children: &[Child]) -> Vec<(i64, &'static str)> {
        let state = |child: &Child| match &child.state {
            ChildState::Pending => "pending",
            ChildState::Crashed => "crashed",
            ChildState::Retry { attempt, .. } => attempt.reason.as_str(),
            ChildState::Dead(_) => "dead",
        };
        children.iter().map(|child| (child.event_id, state(child))).collect()
    }

    #[tokio::test]
    async fn failed_events_of_a_batch_become_tasks_and_the_others_complete() {
        let Outcome::Split { effects, children } = outcome_of(&["a", "invalid", "b", "panic", "fail"]).await else {
            panic!("the batch is split");
        };
        assert_eq!(effects.iter().map(|effect| effect.event_id).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(states(&children), [(2, "dead"), (4, "panic"), (5, "error")]);
    }

    #[tokio::test]
    async fn events_after_a_time_out_use_no_attempt() {
        let Outcome::Split { effects, children } = outcome_of(&["a", "hang", "b", "c"]).await else {
            panic!("the batch is split");
        };
        assert_eq!(effects.len(), 1);
        assert_eq!(states(&children), [(2, "timeout"), (3, "pending"), (4, "pending")]);
    }

    #[tokio::test]
    async fn batch_is_retried_as_a_whole_if_all_events_fail_and_can_be_retried() {
        assert!(matches!(outcome_of(&["fail", "fail"]).await, Outcome::Retry { .. }));
        assert!(matches!(outcome_of(&["fail", "invalid"]).await, Outcome::Split { .. }));
    }

    #[tokio::test]
    async fn single_event_fails_on_panic_time_out_and_error() {
        for (name, expected) in
            [("panic", FailureReason::Panic), ("hang", FailureReason::Timeout), ("fail", FailureReason::Error)]
        {
            let Outcome::Retry { attempt, .. } = outcome_of(&[name]).await else { panic!("{name} is retried") };
            assert_eq!(attempt.reason, expected);
        }
        assert!(matches!(outcome_of(&["a"]).await, Outcome::Completed(_)));
        assert!(matches!(outcome_of(&[]).await, Outcome::Orphaned));
    }

    #[tokio::test]
    async fn nul_in_results_and_errors_is_replaced() {
        let Outcome::Completed(effects) = outcome_of(&["nul"]).await else { panic!("completes") };
        assert_eq!(effects[0].properties, r#"{"a":"\ufffd","b":"\\u0000"}"#);
        let Outcome::DeadLetter(attempt) = outcome_of(&["nul error"]).await else { panic!("is dead") };
        assert_eq!((attempt.reason, attempt.error.as_str()), (FailureReason::InvalidPayload, "a\u{fffd}b"));
    }

    #[test]
    fn failed_attempt_is_retried_only_if_retryable_and_attempts_are_left() {
        let outcome = |attempt, error| POLICY.failed(attempt, 3, error);
        let two_seconds = Duration::from_secs(2);
        assert!(matches!(outcome(1, ProcessError::failed("x")), Outcome::Retry { delay, .. } if delay == two_seconds));
        assert!(matches!(outcome(3, ProcessError::failed("x")), Outcome::DeadLetter(_)));
        assert!(matches!(outcome(1, ProcessError::invalid_payload("x")), Outcome::DeadLetter(_)));
    }
}
