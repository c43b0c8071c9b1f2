//! The operator: reconciles `PulseIngest` objects.
//!
//! It migrates the database, rolls out the roles, scales the workers from the depth of the Redis queue, and reports
//! each step in the status. A reconcile is `observe → plan → desired → apply → status`, with I/O only at both ends.
//!
//! It never connects to the database, reads only its digest key and the Secrets that the objects reference, and uses no
//! finalizers, so a deletion never waits for it.

mod apply;
mod apply_memory;
mod backoff;
mod cache;
mod client;
mod compare;
mod condition;
mod connections;
mod context;
mod controller;
mod decisions_writer;
pub mod desired;
mod events;
mod fights;
mod fit;
mod instances;
mod intervals;
mod job_rejections;
mod lease;
mod leftovers;
mod memory;
mod metrics;
mod migration;
mod observe;
mod openapi;
mod operator;
mod owner;
mod plan;
pub mod plugin;
mod pods;
mod preflight;
mod progress;
pub mod rbac;
mod replicas;
pub mod revision;
mod rollout;
mod rollout_queue;
pub mod scaling;
mod secret_reads;
mod secrets;
mod served;
mod status;
mod status_writer;
mod unapplied;
mod watches;
mod workers;

pub use intervals::Intervals;
pub use lease::LeaseConfig;
pub use metrics::OperatorMetrics;
pub use operator::{Kubernetes, Operator, OperatorConfig, OperatorError, OperatorHealth};
pub use preflight::{Finding, preflight};
