//! Samples of the queues: `sampler.rs` reads Redis, off the reconcile path, at the address of `address.rs`.

mod address;
mod sampler;

pub use address::RedisServer;
pub use pulse_queue::AllowedHosts;
pub use sampler::{Key, SampleTarget, Samplers};
