//! Why a task waits, or how it ended: one sentence of cause, one of what to do, and the timeline from the request to the
//! settlement.
//!
//! [`gather`] reads the facts in bounded time. [`explain`] and [`timeline`] are pure functions of them.

mod cause;
mod explain;
mod facts;
mod gather;
mod line;
mod reason;
mod running;
mod settled;
#[cfg(test)]
mod tests;
mod timeline;
mod waiting;
mod words;
mod workers;

pub use cause::Cause;
pub use explain::explain;
pub use facts::Facts;
pub use gather::{Found, gather, read};
pub use reason::{Explanation, Reason};
pub use timeline::{Step, StepKind, Timeline, steps, timeline};
