//! One sample of the queue of an instance.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use pulse_queue::{Depth, Gauges};

/// Maximum age of the gauges from PostgreSQL. Older ones make the backlog *unknown*, not zero.
pub const GAUGES_MAX_AGE: SignedDuration = SignedDuration::from_secs(pulse_queue::GAUGES_MAX_AGE.as_secs() as i64);

/// One sample of the queue of an instance. An absent value is unknown, never zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Time of the sample, by the operator's clock.
    pub at: Timestamp,
    /// Depth of the stream, from Redis.
    pub depth: Option<Depth>,
    /// Time when the oldest entry of the stream was added, in milliseconds since the Unix epoch, by Redis' clock.
    pub oldest_entry_ms: Option<i64>,
    /// The newest gauges that the scheduler published from PostgreSQL to Redis, whatever their age.
    pub gauges: Option<Gauges>,
    /// Number of tasks in flight, by worker pod.
    pub in_flight: BTreeMap<String, u64>,
    /// The error that makes a value absent. Gauges that no scheduler has published yet are absent without an error.
    pub error: Option<SampleError>,
}

impl Sample {
    /// A sample that failed: every value is unknown.
    pub fn failed(at: Timestamp, error: SampleError) -> Self {
        Self { at, depth: None, oldest_entry_ms: None, gauges: None, in_flight: BTreeMap::new(), error: Some(error) }
    }
}

/// Why the queue could not be read; the reasons of the condition `QueueReachable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleError {
    /// Redis does not accept connections, or answers that it cannot serve.
    ConnectionFailed,
    /// Redis rejects the user name or the password, or the user lacks a permission.
    AuthFailed,
    /// The TLS handshake failed: untrusted certificate, unusable CA, or a server without TLS.
    TlsFailed,
    /// Redis did not answer in time.
    TimedOut,
    /// A key has an unexpected type or value: another program wrote it.
    WrongType,
}

impl SampleError {
    /// The reason in conditions.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ConnectionFailed => "ConnectionFailed",
            Self::AuthFailed => "AuthFailed",
            Self::TlsFailed => "TlsFailed",
            Self::TimedOut => "TimedOut",
            Self::WrongType => "WrongType",
        }
    }
}
