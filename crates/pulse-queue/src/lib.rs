//! Redis Streams as a wake-up channel: a stream entry names a task that a worker can claim in PostgreSQL.
//!
//! PostgreSQL stays the source of truth. Redis may lose all its data without any task being lost.
//!
//! Redis Streams in brief: `XADD` appends an entry; a *consumer group* delivers each entry to one of its consumers
//! (`XREADGROUP`) and keeps it *pending* until it is acknowledged (`XACK`). We acknowledge and delete (`XDEL`)
//! together, so a stream's length is exact: undelivered = `XLEN` − pending, in flight = pending.
//!
//! Fairness between users: Redis counts the entries of each user. A user with more than a thousand is *deep*, and its
//! further tasks go to the *bulk stream*, of which a worker reads little while the other stream has entries. Scripts
//! (`scripts/*.lua`) add and remove entries together with their count, so the counts are exact.
//!
//! An entry holds only a task id, the number of its user and a trace context: it is small and has no personal data.
//! Only commands of Redis 6.2 are used, which Valkey supports too. The streams are never trimmed. An entry may be
//! delivered twice or never: the claim in PostgreSQL rejects the duplicate, and the scheduler's requeue job enqueues the
//! lost task again.

mod bounded;
mod connection;
mod consumer;
mod depth;
mod entries;
mod error;
mod fault;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod health;
mod hosts;
mod keys;
mod open;
mod probe;
mod publisher;
mod scripts;
mod server;
mod snapshot;
mod stream_snapshot;
mod upkeep;
mod url;
mod why;

pub use connection::{Queue, QueueConfig};
pub use consumer::{Acknowledger, Consumer, Delivery, EntryId};
pub use depth::{Delivered, Depth, GAUGES_MAX_AGE, GAUGES_PERIOD, Gauges, StreamDepth};
pub use entries::Entries;
pub use error::{QueueError, Refusal};
pub use fault::Fault;
pub use health::RedisHealth;
pub use hosts::{AllowedHosts, Endpoints, Hosts};
pub use publisher::{Entry, Publisher};
pub use scripts::DEEP;
pub use snapshot::{Snapshot, SnapshotReader};
pub use upkeep::{Reaped, RedisMemory, RedisSetting};
pub use why::{ConsumerFacts, EntryFacts, QueueFacts};
