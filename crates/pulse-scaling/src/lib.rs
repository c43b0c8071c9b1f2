//! How many workers the tasks need: from the depth of the queue to a number of replicas, with a reason.
//!
//! [`decide`] is pure: the rules ([`Policy`]), the past ([`Memory`]), what was found ([`Observed`]) and the time go in;
//! a [`Decision`] and the memory for the next one come out. `memory.rs` and `learning.rs` keep what a decision needs of
//! the past, `queue.rs` derives the state of the queue from a sample, `targets.rs` computes the recommendation,
//! `limits.rs` applies the tolerance, the bounds, the stabilization windows and the scaling policies, `schedule.rs` has
//! minima by the time of day. [`simulation`] compares the same code with KEDA and a HorizontalPodAutoscaler.
//!
//! Guarantees:
//!
//! * Only tasks that wait have an age. A running task, however long, adds no worker.
//! * An unknown backlog never counts as zero and never scales down.
//! * A restart of the operator scales nothing down before a whole stabilization window has passed.
//! * The last worker is removed only after no task was due and nothing happened for the whole idle time.
//! * Each decision names the target that won, the limit that applied, and its inputs.

mod decide;
mod decision;
mod learning;
mod limits;
mod memory;
mod observed;
mod policy;
mod queue;
mod schedule;
pub mod simulation;
mod targets;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use decide::decide;
pub use decision::{Decision, Inputs, Limit, ScalingReason};
pub use learning::Learned;
pub use memory::Memory;
pub use observed::{Depth, GAUGES_MAX_AGE, Gauges, Observed, STARTUP_BUDGET, Sample, WorkerPod, Workers};
pub use policy::{Behavior, Pause, Policy, ScalingRules, Target};
pub use schedule::{Schedule, ScheduleError};
