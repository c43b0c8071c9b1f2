//! Types and rules of events and tasks.
//!
//! An *event* is what a client posts. A *task* is the processing of one event or of one batch. This crate parses
//! events, defines the types of a task, computes when a failed attempt is retried, and has the defaults of settings.
//!
//! It does no I/O, reads no clock and does not depend on an async runtime: time and randomness are arguments.

mod decisions;
pub mod defaults;
mod diagnostic;
mod event;
mod fields;
mod json;
mod panic;
mod parse;
mod retry;
mod task;
mod time;
mod timing;
mod trace;
mod user_limits;

pub use decisions::{ConditionRow, Decisions, MAX_DECISIONS_BYTES, MigrationDecision, ScalingDecision};
pub use diagnostic::{FieldError, Location, Warning};
pub use event::{Event, Limits, NewEvent};
pub use fields::{TEXT_FIELDS, TextField, TextFields, TextFormat};
pub use json::{JsonError, check_text, repair};
pub use panic::panic_message;
pub use parse::{parse_event, unknown_fields};
pub use retry::RetryPolicy;
pub use task::{Attempt, AttemptOutcome, ClaimedTask, FailureReason, TaskKind, processed_properties};
pub use time::{EXPECTED_TIME, parse_time};
pub use timing::{READ_BLOCK, SILENT_CONSUMER, STALE_DELIVERY, TASK_LEASE};
pub use trace::TRACE;
pub use user_limits::UserLimits;
