//! What an event and a task are.
//!
//! An *event* is what a client posts; a *task* is the work owed for one event or one batch. This crate parses
//! the first, says what may become of the second, and computes when a failed attempt runs again.
//!
//! It does no I/O, reads no clock and knows no runtime: time and randomness are arguments.

mod event;
mod json;
mod retry;
mod task;

pub use event::{EVENT_FIELDS, Event, FieldError, Limits, Location, NewEvent, Warning, parse_event};
pub use json::{JsonError, check_text, repair};
pub use retry::RetryPolicy;
pub use task::{Attempt, ClaimedTask, FailureReason, TaskKind, processed_properties};
