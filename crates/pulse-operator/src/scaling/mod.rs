//! How many workers: from the depth of the queue to a number, with a reason.
//!
//! `sampler.rs` and only it does I/O: it reads Redis, off the reconcile path. Everything else is pure, with the time as
//! an argument: `queue.rs` puts a sample together, `history.rs` and `learning.rs` remember what a decision needs of
//! the past, `targets.rs` says how many workers the work needs, `limits.rs` how fast the number may change, `plan.rs` makes
//! a decision of both, and `victims.rs` chooses who goes.
//!
//! It guarantees: what is unknown never counts as zero, and never scales down; a restart of the operator scales nothing
//! down before a whole window has passed; zero workers only after nothing was owed for a whole idle time; each decision
//! names what won, what limited it and what it was computed from.
//!
//! It does not write: the caller applies a [`Decision`], and tells the [`History`] that it did.

mod decision;
mod estimate;
mod history;
mod learning;
mod limits;
mod plan;
mod policy;
mod sample;
mod sampler;
mod targets;
mod victims;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use decision::{Decision, Limit, ScalingReason};
pub use history::History;
pub use plan::plan_workers;
pub use policy::{Policy, STARTUP_BUDGET, WorkerPod, Workers};
pub use sample::{GAUGES_MAX_AGE, Sample, SampleError};
pub use sampler::{Key, RedisServer, SampleTarget, Samplers};
pub use victims::{CostChange, VICTIM_COST, choose_victims, in_flight_by_pod};
