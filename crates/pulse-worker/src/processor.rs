//! The processor: the code that a team plugs into the worker.

use async_trait::async_trait;
use pulse_core::{Event, FailureReason, processed_properties};

/// Turns an event into its `properties`.
///
/// A task runs at least once, so a processor may receive an event more than once, even concurrently with an older
/// attempt that lost its lease. The returned properties are stored exactly once; make side effects idempotent by the
/// event's id.
///
/// Processors run on separate threads: a slow or endless one delays other processors, never leases or settlements. The
/// future is dropped at the task time-out.
#[async_trait]
pub trait Processor: Send + Sync + 'static {
    /// Returns the properties of the event as JSON text.
    ///
    /// # Errors
    /// [`ProcessError`] fails the attempt. In a batch, only this event fails: it gets a task.
    async fn process(&self, event: &Event) -> Result<String, ProcessError>;
}

/// Why processing failed. The message is stored with the task and visible to its user: do not put secrets into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessError {
    /// [`FailureReason::InvalidPayload`] is never retried, [`FailureReason::Error`] is.
    pub reason: FailureReason,
    /// Human-readable error message.
    pub message: String,
}

impl ProcessError {
    /// The event can never be processed: the task is dead-lettered at once.
    pub fn invalid_payload(message: impl Into<String>) -> Self {
        Self { reason: FailureReason::InvalidPayload, message: message.into() }
    }

    /// The attempt failed: the task is retried while attempts are left.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { reason: FailureReason::Error, message: message.into() }
    }
}

/// The built-in processor. Its properties are payload and time of the event: `{"original": …, "timestamp": …}`.
#[derive(Debug, Clone, Copy)]
pub struct Normalize;

#[async_trait]
impl Processor for Normalize {
    async fn process(&self, event: &Event) -> Result<String, ProcessError> {
        processed_properties(event)
            .map_err(|reason| ProcessError { reason, message: "the payload is not a JSON object".into() })
    }
}
