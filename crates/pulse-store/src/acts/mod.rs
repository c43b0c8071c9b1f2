//! Acts on tasks: retry dead ones, cancel dead and unsettled ones. An act is any number of short transactions, which skip
//! rows that another transaction has locked, so that nothing else waits. Each adds to the row of the act in
//! `running_acts`, and the end of the act moves that row to the audit log: an act leaves one row, with its exact count, also
//! if its process is killed.

mod count;
mod register;
mod run;
mod statement;
mod step;

pub use count::MatchingTasks;
pub use register::{ActOutcome, ActStatus};
pub use run::{ActRun, MovedTasks, TaskAction};
