//! One attempt of a task: runs the processor on its events and decides the outcome.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use pulse_core::{Attempt, ClaimedTask, FailureReason, RetryPolicy, panic_message};
use pulse_store::{Effect, Outcome};

use crate::processor::{ProcessError, Processor};

/// Maximum length of a stored error message, in characters.
const MAX_ERROR_CHARS: usize = 1000;

/// Runs the processor on the events of the task, one after the other. The first failure ends the attempt.
///
/// Panics are caught. The time-out works only for a processor that yields; the heartbeat finds one that does not.
///
/// # Errors
/// The error of the processor, with the event's id in its message, a panic, or the time-out.
pub(crate) async fn run(
    task: &ClaimedTask,
    processor: &dyn Processor,
    timeout: Duration,
) -> Result<Vec<Effect>, ProcessError> {
    let processing = async {
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
    match tokio::time::timeout(timeout, AssertUnwindSafe(processing).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let message = format!("processing panicked: {}", panic_message(&*panic));
            Err(ProcessError { reason: FailureReason::Panic, message })
        }
        Err(_) => Err(timed_out(timeout)),
    }
}

pub(crate) fn timed_out(timeout: Duration) -> ProcessError {
    let message = format!("processing took longer than {} s", timeout.as_secs_f64());
    ProcessError { reason: FailureReason::Timeout, message }
}

/// Returns the outcome of a failed attempt: a retry if the reason is retryable and attempts are left, else dead.
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
        Attempt { attempt: attempt_no, at: now, reason, error: message.chars().take(MAX_ERROR_CHARS).collect() };
    if reason.is_retryable() && attempt_no < max_attempts {
        Outcome::Retry { delay: retry.delay(attempt_no, random), attempt }
    } else {
        Outcome::DeadLetter(attempt)
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use pulse_core::{Event, TextFields};
    use uuid::Uuid;

    use super::*;

    const RETRY: RetryPolicy = RetryPolicy { base_seconds: 2.0, cap: Duration::from_secs(60), jitter_percent: 0.0 };

    /// Panics, hangs or fails as the name of the event says.
    struct ScriptedProcessor;

    #[async_trait]
    impl Processor for ScriptedProcessor {
        async fn process(&self, event: &Event) -> Result<String, ProcessError> {
            match event.fields.event_name.as_str() {
                "panic" => panic!("as requested"),
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
            task_id: Uuid::nil(),
            user_id: 1,
            fields: TextFields { event_name: (*name).into(), ..TextFields::default() },
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
    async fn attempt_succeeds_only_if_all_events_do() {
        let effects = run(&task(&["a", "b"]), &ScriptedProcessor, Duration::from_secs(5)).await.expect("succeeds");
        assert_eq!(effects.iter().map(|effect| effect.event_id).collect::<Vec<_>>(), [1, 2]);
        let error =
            run(&task(&["a", "invalid", "b"]), &ScriptedProcessor, Duration::from_secs(5)).await.expect_err("fails");
        assert_eq!(error, ProcessError::invalid_payload("event 2: bad"));
    }

    #[tokio::test]
    async fn attempt_fails_on_panic_and_time_out() {
        assert_eq!(reason(&["panic"]).await, FailureReason::Panic);
        assert_eq!(reason(&["hang"]).await, FailureReason::Timeout);
    }

    #[test]
    fn failed_attempt_is_retried_only_if_retryable_and_attempts_are_left() {
        let outcome = |attempt, error| failed(attempt, 3, error, &RETRY, DateTime::UNIX_EPOCH, 0.5);
        let two_seconds = Duration::from_secs(2);
        assert!(matches!(outcome(1, ProcessError::failed("x")), Outcome::Retry { delay, .. } if delay == two_seconds));
        assert!(matches!(outcome(3, ProcessError::failed("x")), Outcome::DeadLetter(_)));
        assert!(matches!(outcome(1, ProcessError::invalid_payload("x")), Outcome::DeadLetter(_)));
    }
}
