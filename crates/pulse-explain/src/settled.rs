//! How a settled or dead task ended.

use pulse_core::FailureReason;

use crate::cause::Cause;
use crate::facts::Facts;
use crate::reason::Reason;
use crate::words::{clock, count, quoted, time};

pub(crate) fn reason(facts: &Facts) -> Reason {
    let status = facts.status();
    let at = status.settled_at.unwrap_or(status.created_at);
    let clock = clock(at, facts.now());
    match status.state.as_str() {
        "dead" => dead(facts, &clock),
        "cancelled" => Reason::new(
            Cause::Cancelled,
            format!("An administrator cancelled it at {clock}, and its events stay unprocessed."),
            "Nothing: to process the events, post them again.",
        ),
        "orphaned" => Reason::new(
            Cause::Orphaned,
            format!("Its events were deleted before a worker claimed it at {clock}, so there was nothing to process."),
            "Nothing: this is how tasks of a deleted user end.",
        ),
        _ => Reason::new(
            Cause::Completed,
            format!(
                "It completed at {clock}, {} after it was accepted, in {}.",
                time(at - status.created_at),
                count(status.attempts.into(), "attempt"),
            ),
            "Nothing.",
        ),
    }
}

fn dead(facts: &Facts, clock: &str) -> Reason {
    let status = facts.status();
    let id = status.id;
    let last = status.errors.last();
    let error = last.map(|last| quoted(&last.error)).unwrap_or_default();
    match last.map(|last| last.reason) {
        Some(FailureReason::InvalidPayload) => Reason::new(
            Cause::DeadInvalidPayload,
            format!("It is dead since {clock}: the processor says that the payload can never be processed: {error}."),
            format!(
                "Correct the sender and post the event again; if the processor was wrong, run `pulse tasks retry {id}`."
            ),
        ),
        Some(FailureReason::Crash) => Reason::new(
            Cause::DeadCrash,
            format!(
                "It is dead since {clock}: workers died in {} while it ran alone.",
                count(status.attempts.into(), "attempt")
            ),
            format!(
                "Look for the end of these workers in their logs (memory, abort), then run `pulse tasks retry {id}`."
            ),
        ),
        reason => Reason::new(
            Cause::DeadAttempts,
            format!(
                "It is dead since {clock}: the last of {} failed ({}): {error}.",
                count(status.attempts.into(), "attempt"),
                reason.map_or("unknown", FailureReason::as_str),
            ),
            format!("Remove the cause of the error, then run `pulse tasks retry {id}`."),
        ),
    }
}
