//! What `pulse-scaling`, which decides the number of workers, needs of Kubernetes: `policy.rs` reads the rules from a spec,
//! `sample.rs` is a sample of the queue, `record.rs` writes a decision and what was learned into the status,
//! `worker_pods.rs` reads pods, and `victims.rs` chooses those to remove.

mod policy;
mod record;
mod sample;
mod victims;
mod worker_pods;

pub use policy::Rules;
pub use record::{known, learned, record, remembered, two_digits};
pub use sample::{Sample, SampleError};
pub use victims::{Candidate, CostChange, VICTIM_COST, choose_victims, in_flight_by_pod};
pub use worker_pods::{candidate, worker_pod};
