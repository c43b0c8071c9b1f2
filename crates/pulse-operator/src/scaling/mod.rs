//! What `pulse-scaling`, which decides the number of workers, needs of Kubernetes and Redis: `policy.rs` reads the rules
//! from a spec, `sampler.rs` samples the queues off the reconcile path, at the address of `address.rs`, `record.rs` writes a
//! decision and what was learned into the status, `worker_pods.rs` reads pods, and `victims.rs` chooses those to remove.

mod address;
mod policy;
mod record;
mod sample;
mod sampler;
mod victims;
mod worker_pods;

pub use address::{AllowedHosts, RedisServer};
pub(crate) use policy::Rules;
pub(crate) use record::{known, learned, record, remembered, two_digits};
pub use sample::{Sample, SampleError};
pub use sampler::{Key, SampleTarget, Samplers};
pub use victims::{Candidate, CostChange, VICTIM_COST, choose_victims, in_flight_by_pod};
pub(crate) use worker_pods::{candidate, worker_pod};
