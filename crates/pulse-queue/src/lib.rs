//! Redis Streams as a wake-up channel: a stream entry names a task that a worker can claim in PostgreSQL.
//!
//! PostgreSQL stays the source of truth. Redis may lose all its data without any task being lost.
//!
//! Redis Streams in brief: `XADD` appends an entry; a *consumer group* delivers each entry to one of its consumers
//! (`XREADGROUP`) and keeps it *pending* until it is acknowledged (`XACK`). We acknowledge and delete (`XDEL`)
//! together, so the stream's length is exact: undelivered = `XLEN` − pending, in flight = pending.
//!
//! An entry holds only a task id and a trace context: it is small and has no personal data. Only commands of Redis 6.2
//! are used, which Valkey supports too. The stream is never trimmed. An entry may be delivered twice or never: the
//! claim in PostgreSQL rejects the duplicate, and the scheduler's requeue job enqueues the lost task again.

mod connection;
mod consumer;
mod depth;
mod error;
mod keys;
mod publisher;
mod snapshot;
mod upkeep;

pub use connection::{Queue, QueueConfig};
pub use consumer::{Acknowledger, Consumer, Delivery};
pub use depth::{Depth, GAUGES_MAX_AGE, GAUGES_PERIOD, Gauges};
pub use error::QueueError;
pub use publisher::{Entry, Publisher};
pub use snapshot::{Fault, Snapshot, SnapshotReader};
pub use upkeep::{Reaped, RedisSettings};
