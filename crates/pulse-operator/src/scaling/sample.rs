//! One look at the queue of one ingest.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use pulse_queue::{Depth, Gauges};

/// What PostgreSQL was last known to hold is *unknown*, and not zero, once it is older than this.
pub const GAUGES_MAX_AGE: SignedDuration = SignedDuration::from_secs(10);

/// One look at the queue of one ingest. What is absent is unknown, never zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// When, by the operator's clock.
    pub at: Timestamp,
    /// What Redis knows of the stream.
    pub depth: Option<Depth>,
    /// When the oldest entry of the stream was added, in milliseconds since 1970 by Redis' clock.
    pub oldest_entry_ms: Option<i64>,
    /// What the scheduler told Redis from PostgreSQL, however old it is.
    pub gauges: Option<Gauges>,
    /// Tasks in flight, by the pod that holds them.
    pub in_flight: BTreeMap<String, u64>,
    /// Why something is absent. Gauges that nobody has published yet are absent without an error.
    pub error: Option<SampleError>,
}

impl Sample {
    /// A look that showed nothing.
    pub fn failed(at: Timestamp, error: SampleError) -> Self {
        Self { at, depth: None, oldest_entry_ms: None, gauges: None, in_flight: BTreeMap::new(), error: Some(error) }
    }
}

/// Why the queue could not be read; the reasons of the condition `QueueReachable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleError {
    /// Nobody answers there, or only to say that it cannot serve.
    ConnectionFailed,
    /// The password or the rights are wrong.
    AuthFailed,
    /// Its certificate or the CA is of no use, or it does not speak TLS.
    TlsFailed,
    /// It did not answer in time.
    TimedOut,
    /// A key holds something else than we wrote: another type, or a figure that is none.
    WrongType,
}

impl SampleError {
    /// The reason in conditions and metrics.
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
