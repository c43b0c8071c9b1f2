//! The operator: reconciles `PulseIngest` objects.
//!
//! It migrates the database, rolls out the roles, scales the workers from the depth of the Redis queue, and reports
//! each step in the status. A reconcile is `observe → decide → apply → conclude → publish`; what decides is in the crate
//! `pulse-reconcile`.
//!
//! It never connects to the database, reads only its digest key and the Secrets that the objects reference, and uses no
//! finalizers, so a deletion never waits for it.

mod apply;
mod cache;
mod caches;
mod client;
mod context;
mod controller;
mod decisions_writer;
mod instances;
mod jitter;
mod job_rejections;
mod lease;
mod metrics;
mod observe;
mod openapi;
mod operator;
mod preflight;
mod progress;
mod publish;
pub mod rbac;
mod rollout_queue;
pub mod scaling;
mod secrets;
mod status_writer;
mod watches;

pub use lease::LeaseConfig;
pub use metrics::OperatorMetrics;
pub use operator::{Kubernetes, Operator, OperatorConfig, OperatorError, OperatorHealth};
pub use preflight::{Finding, preflight};
pub use pulse_reconcile::intervals::Intervals;
