//! The processing step: what a team replaces, without touching the loop around it.

use async_trait::async_trait;
use pulse_core::{Event, FailureReason, processed_properties};

/// Turns an event into its `properties`.
///
/// A task runs at least once, so a step may see an event again, also while an older attempt that lost its lease is
/// still at it. What it returns is stored exactly once; what it does elsewhere should be keyed by the event's id.
///
/// Steps run on threads of their own: a slow or endless one delays other processors, never the leases. The future is dropped
/// when the task's time is up.
#[async_trait]
pub trait Processor: Send + Sync + 'static {
    /// Returns the event's properties as JSON text.
    ///
    /// # Errors
    /// [`ProcessError`]; in a batch, one failed event fails them all.
    async fn process(&self, event: &Event) -> Result<String, ProcessError>;
}

/// Why a step failed. The text is stored with the task and shown to its owner, so it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessError {
    /// [`FailureReason::InvalidPayload`] is never retried, [`FailureReason::Error`] is.
    pub reason: FailureReason,
    /// What happened.
    pub message: String,
}

impl ProcessError {
    /// This event can never be processed: no retry.
    pub fn invalid_payload(message: impl Into<String>) -> Self {
        Self { reason: FailureReason::InvalidPayload, message: message.into() }
    }

    /// This attempt failed: try again later.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { reason: FailureReason::Error, message: message.into() }
    }
}

/// The built-in step: the payload as it came, with the event's time.
#[derive(Debug, Clone, Copy)]
pub struct Normalize;

#[async_trait]
impl Processor for Normalize {
    async fn process(&self, event: &Event) -> Result<String, ProcessError> {
        processed_properties(event)
            .map_err(|reason| ProcessError { reason, message: "the payload is not a JSON object".into() })
    }
}
