//! One attempt at one task: run the step on each of its events, and say what becomes of the task.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use pulse_core::{Attempt, ClaimedTask, FailureReason, RetryPolicy};
use pulse_store::{Effect, Outcome};

use crate::processor::{ProcessError, Processor};

/// The longest error text that is kept, in characters.
const LONGEST_ERROR: usize = 1000;

/// Runs the step on all events of the task, one after the other. The first failure ends it: all events or none.
///
/// Panics are caught; the time-out needs a step that yields, one that does not is found by the heartbeat.
///
/// # Errors
/// Why the attempt failed.
pub(crate) async fn run(
    task: &ClaimedTask,
    processor: &dyn Processor,
    timeout: Duration,
) -> Result<Vec<Effect>, ProcessError> {
    let processors = async {
        let mut effects = Vec::with_capacity(task.events.len());
        for event in &task.events {
            let properties = processor
                .process(event)
                .await
                .map_err(|error| ProcessError { message: format!("event {}: {}", event.id, error.message), ..error })?;
            effects.push(Effect { event_id: event.id, created_at: event.created_at, properties });
        }
        Ok(effects)
    };
    match tokio::time::timeout(timeout, AssertUnwindSafe(processors).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(ProcessError { reason: FailureReason::Panic, message: panic_message(&*panic) }),
        Err(_) => Err(timed_out(timeout)),
    }
}

pub(crate) fn timed_out(timeout: Duration) -> ProcessError {
    let message = format!("processing took longer than {} s", timeout.as_secs_f64());
    ProcessError { reason: FailureReason::Timeout, message }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("processing panicked: {}", text.unwrap_or("no message"))
}

/// What becomes of a task whose attempt failed: retried while attempts are left and another one can help.
pub(crate) fn failed(
    attempt_no: u32,
    max_attempts: u32,
    error: ProcessError,
    retry: &RetryPolicy,
    now: DateTime<Utc>,
    random: f64,
) -> Outcome {
    let ProcessError { reason, message } = error;
    let attempt =
        Attempt { attempt: attempt_no, at: now, reason, error: message.chars().take(LONGEST_ERROR).collect() };
    if reason.is_retryable() && attempt_no < max_attempts {
        Outcome::Retry { delay: retry.delay(attempt_no, random), attempt }
    } else {
        Outcome::DeadLetter(attempt)
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use pulse_core::Event;
    use uuid::Uuid;

    use super::*;

    const RETRY: RetryPolicy = RetryPolicy { base_seconds: 2.0, cap: Duration::from_secs(60), jitter_percent: 0.0 };

    /// Does what the event's name says.
    struct ScriptedProcessor;

    #[async_trait]
    impl Processor for ScriptedProcessor {
        async fn process(&self, event: &Event) -> Result<String, ProcessError> {
            match event.event_name.as_str() {
                "panic" => panic!("as told"),
                "hang" => std::future::pending().await,
                "invalid" => Err(ProcessError::invalid_payload("bad")),
                _ => Ok("{}".into()),
            }
        }
    }

    fn task(names: &[&str]) -> ClaimedTask {
        let time = DateTime::UNIX_EPOCH;
        let events = names.iter().zip(1..).map(|(name, id)| Event {
            id,
            user_id: 1,
            event_name: (*name).into(),
            event_type: "t".into(),
            payload: "{}".into(),
            event_timestamp: time,
            created_at: time,
        });
        ClaimedTask {
            id: Uuid::nil(),
            event_count: names.len(),
            events: events.collect(),
            attempt: 1,
            max_attempts: 3,
            fencing_token: 1,
            crashed: false,
            created_at: time,
            traceparent: None,
            request_id: None,
        }
    }

    async fn reason(names: &[&str]) -> FailureReason {
        run(&task(names), &ScriptedProcessor, Duration::from_millis(20)).await.expect_err("fails").reason
    }

    #[tokio::test]
    async fn all_events_of_a_task_succeed_or_none() {
        let effects = run(&task(&["a", "b"]), &ScriptedProcessor, Duration::from_secs(5)).await.expect("succeeds");
        assert_eq!(effects.iter().map(|effect| effect.event_id).collect::<Vec<_>>(), [1, 2]);
        let error =
            run(&task(&["a", "invalid", "b"]), &ScriptedProcessor, Duration::from_secs(5)).await.expect_err("fails");
        assert_eq!(error, ProcessError::invalid_payload("event 2: bad"));
    }

    #[tokio::test]
    async fn panics_and_time_outs_are_failures_of_the_attempt() {
        assert_eq!(reason(&["panic"]).await, FailureReason::Panic);
        assert_eq!(reason(&["hang"]).await, FailureReason::Timeout);
    }

    #[test]
    fn a_task_is_retried_while_attempts_are_left_and_can_help() {
        let outcome = |attempt, error| failed(attempt, 3, error, &RETRY, DateTime::UNIX_EPOCH, 0.5);
        let two_seconds = Duration::from_secs(2);
        assert!(matches!(outcome(1, ProcessError::failed("x")), Outcome::Retry { delay, .. } if delay == two_seconds));
        assert!(matches!(outcome(3, ProcessError::failed("x")), Outcome::DeadLetter(_)));
        assert!(matches!(outcome(1, ProcessError::invalid_payload("x")), Outcome::DeadLetter(_)));
    }
}
