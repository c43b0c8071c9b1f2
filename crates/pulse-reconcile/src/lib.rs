//! What the operator wants: observed objects in, a decision out. Used by the operator, and by `kubectl pulse plan`.
//!
//! Pure: no client, no clock, no randomness. Times are arguments. The types of Kubernetes come from `kube-core`, so this
//! crate cannot make a request.

pub mod apply_memory;
pub mod backoff;
pub mod compare;
pub mod conclude;
pub mod condition;
pub mod connections;
pub mod decide;
pub mod desired;
pub mod done;
pub mod error;
pub mod events;
pub mod fights;
pub mod fit;
pub mod intervals;
pub mod job_rejections;
pub mod leftovers;
pub mod memory;
pub mod migration;
pub mod now;
pub mod observed;
pub mod owner;
pub mod plan;
pub mod pods;
pub mod replicas;
pub mod revision;
pub mod rollout;
pub mod scaling;
pub mod secret_reads;
pub mod secret_uses;
pub mod secrets;
pub mod seen;
pub mod served;
pub mod status;
pub mod workers;
