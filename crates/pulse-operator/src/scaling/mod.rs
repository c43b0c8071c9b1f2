//! Samples of the queues: `sampler.rs` reads Redis, off the reconcile path, at the address of `address.rs`.

mod address;
mod sampler;

pub use address::{AllowedHosts, RedisServer};
pub use sampler::{Key, SampleTarget, Samplers};
