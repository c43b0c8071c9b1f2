//! Worker autoscaling: from the depth of the queue to a number of replicas, with a reason.
//!
//! Only `sampler.rs` does I/O: it reads Redis, off the reconcile path, at the address of `address.rs`. Everything else is pure, with the time as an
//! argument: `estimate.rs` derives the state of the queue from a sample, `history.rs` and `learning.rs` keep what a
//! decision needs of the past, `targets.rs` computes the recommendation, `limits.rs` applies the tolerance, the
//! stabilization windows and the scaling policies, `plan.rs` combines them into a decision, and `victims.rs` chooses
//! the pods to remove.
//!
//! Guarantees:
//!
//! * An unknown backlog never counts as zero and never scales down.
//! * A restart of the operator scales nothing down before a whole stabilization window has passed.
//! * The last worker is removed only after no task was due and nothing happened for the whole idle time.
//! * Each decision names the target that won, the limit that applied, and its inputs.
//!
//! This module does not write: the caller applies a [`Decision`] and records it in the [`History`].

mod address;
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

pub use address::{AllowedHosts, RedisServer};
pub use decision::{Decision, Limit, ScalingReason};
pub use history::History;
pub use plan::plan_workers;
pub use policy::{Policy, STARTUP_BUDGET, WorkerPod, Workers};
pub use sample::{GAUGES_MAX_AGE, Sample, SampleError};
pub use sampler::{Key, SampleTarget, Samplers};
pub use victims::{CostChange, VICTIM_COST, choose_victims, in_flight_by_pod};
