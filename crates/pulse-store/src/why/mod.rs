//! What is known of one task and of what it may wait for. `pulse-explain` draws the conclusions.
//!
//! Each read is bounded: by an index, by a limit of rows, or by the time limit of a pooled statement (5 s). None locks a
//! row, because a claim skips locked ones.

mod instance;
mod task;

pub use instance::{InstanceFacts, JobFacts, LeasedFacts, UserBacklog};
pub use task::{EventFacts, RowLock, TaskFacts};
