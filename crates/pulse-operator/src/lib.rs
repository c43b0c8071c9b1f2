//! The operator: one `PulseIngest`, reconciled.
//!
//! It migrates the database, rolls the roles out, scales the workers from the depth of the Redis queue, and explains
//! each step. Reconcile reads `observe → validate → plan → desired → apply → status`; I/O is only at both ends.
//!
//! It never opens the database, never reads a Secret that the object does not name, and never needs to be up for a
//! deletion to end.

mod apply;
pub mod cache;
mod client;
mod compare;
mod controller;
pub mod crd;
pub mod desired;
mod events;
#[cfg(test)]
mod fixture;
mod lease;
mod memory;
mod metrics;
pub mod migration;
pub mod names;
pub mod observe;
mod operator;
pub mod plan;
pub mod plugin;
mod pods;
mod preflight;
mod progress;
pub mod rbac;
pub mod revision;
pub mod scaling;
pub mod secrets;
pub mod status;
mod watches;
mod workers;
pub mod yaml;

pub use controller::Intervals;
pub use lease::LeaseConfig;
pub use metrics::OperatorMetrics;
pub use operator::{Kubernetes, Operator, OperatorConfig, OperatorError, OperatorHealth};
pub use preflight::{Finding, preflight};
