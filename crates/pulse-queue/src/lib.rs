//! Redis, the bell: it tells workers quickly which tasks are owed. It may lose everything, and nothing is lost.
//!
//! Redis Streams in brief: `XADD` appends an entry; a *consumer group* delivers each entry to one of its consumers
//! (`XREADGROUP`) and keeps it *pending* until it is acknowledged (`XACK`). We acknowledge and delete (`XDEL`) together,
//! so the stream's length is exact: undelivered = `XLEN` − pending, in flight = pending.
//!
//! An entry holds a task id and a trace context, nothing else: small, and no personal data. Only commands of Redis 6.2,
//! which Valkey has too. The stream is never trimmed. Delivery may repeat or fail to happen; the claim in PostgreSQL and
//! the sweep make up for both.

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
pub use depth::{Depth, Gauges};
pub use error::QueueError;
pub use publisher::{Entry, Publisher};
pub use snapshot::{Fault, Snapshot, SnapshotReader};
pub use upkeep::{Reaped, RedisSettings};
