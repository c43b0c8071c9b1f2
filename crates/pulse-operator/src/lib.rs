//! The operator: reconciles `PulseIngest` objects.
//!
//! It migrates the database, rolls out the roles, scales the workers from the depth of the Redis queue, and reports
//! each step in the status. A reconcile is `observe → plan → desired → apply → status`, with I/O only at both ends.
//!
//! It never connects to the database, reads only its digest key and the Secrets that the objects reference, and uses no
//! finalizers, so a deletion never waits for it.

mod apply;
mod cache;
mod client;
mod context;
mod controller;
mod decisions_writer;
mod events;
mod instances;
mod jitter;
mod job_rejections;
mod lease;
mod memory;
mod metrics;
mod observe;
mod openapi;
mod operator;
mod preflight;
mod progress;
pub mod rbac;
mod replicas;
mod rollout_queue;
pub mod scaling;
mod status_writer;
mod watches;
mod workers;

pub use lease::LeaseConfig;
pub use metrics::OperatorMetrics;
pub use operator::{Kubernetes, Operator, OperatorConfig, OperatorError, OperatorHealth};
pub use preflight::{Finding, preflight};
