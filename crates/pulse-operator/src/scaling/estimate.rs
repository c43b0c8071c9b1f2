//! The state of the queue, as derived from the newest samples.

use jiff::{SignedDuration, Timestamp};
use pulse_queue::{Depth, Gauges};

use super::sample::GAUGES_MAX_AGE;

/// Workers are started this long before a retry falls due, and are not removed when one is due within this time.
pub(super) const WAKE_LEAD: SignedDuration = SignedDuration::from_secs(30);

/// The whole backlog. Figures are numbers of tasks unless stated otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct QueueState {
    pub(super) backlog: u64,
    pub(super) in_flight: u64,
    /// Age of the oldest due task, in seconds.
    pub(super) oldest_age: Option<u64>,
    /// Time when the next retry falls due, by the operator's clock.
    pub(super) next_due: Option<Timestamp>,
    /// Tasks were accepted since the previous sample.
    pub(super) arrived: bool,
}

/// The part of the backlog that Redis knows: a lower bound of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LowerBound {
    pub(super) length: u64,
    pub(super) in_flight: u64,
}

/// What is known of the queue at a given time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Estimate {
    /// The newest sample has the whole backlog.
    Whole(QueueState),
    /// Few samples were incomplete since: the last complete state, and what the newest sample has.
    Stale { last: Option<QueueState>, lower_bound: Option<LowerBound> },
    /// Too many samples in a row were incomplete or absent.
    Unknown { lower_bound: Option<LowerBound> },
}

impl QueueState {
    /// Combines the depth from Redis and the gauges from PostgreSQL of a sample taken `at`.
    pub(super) fn new(
        at: Timestamp,
        oldest_entry_ms: Option<i64>,
        depth: &Depth,
        gauges: &Gauges,
        arrived: bool,
    ) -> Self {
        // After Redis lost its data, PostgreSQL counts the lost tasks as enqueued until the next requeue. As long as no
        // retry waits, every unsettled task is due.
        let all_due = if gauges.next_due_ms < 0 { gauges.unsettled.max(0).cast_unsigned() } else { 0 };
        Self {
            backlog: depth.length.saturating_add(gauges.due_not_enqueued.max(0).cast_unsigned()).max(all_due),
            in_flight: depth.in_flight,
            oldest_age: oldest_age(oldest_entry_ms, depth, gauges),
            next_due: next_due(at, depth, gauges),
            arrived,
        }
    }

    /// Whether a retry is due within [`WAKE_LEAD`].
    pub(super) fn retry_is_near(&self, now: Timestamp) -> bool {
        self.next_due.is_some_and(|due| due.duration_since(now) <= WAKE_LEAD)
    }

    /// Whether tasks wait that no worker has yet, so that more workers would have work.
    pub(super) fn has_waiting(&self) -> bool {
        self.backlog > self.in_flight
    }
}

/// PostgreSQL's age of the oldest unsettled task includes the delay before a retry, which more workers cannot shorten.
/// So the age of a task in the stream counts from when it was enqueued.
fn oldest_age(oldest_entry_ms: Option<i64>, depth: &Depth, gauges: &Gauges) -> Option<u64> {
    let unsettled_ms = gauges.oldest_age_ms.max(0);
    let enqueued_ms = oldest_entry_ms.map(|at_ms| (depth.redis_now_ms - at_ms).max(0));
    let age_ms = match enqueued_ms {
        Some(enqueued_ms) if gauges.due_not_enqueued <= 0 => enqueued_ms.min(unsettled_ms),
        None if gauges.due_not_enqueued <= 0 => return None,
        _ => unsettled_ms,
    };
    Some(age_ms.cast_unsigned() / 1000)
}

fn next_due(at: Timestamp, depth: &Depth, gauges: &Gauges) -> Option<Timestamp> {
    let in_ms = Some(gauges.next_due_ms).filter(|in_ms| *in_ms >= 0)?;
    let age_ms = (depth.redis_now_ms - gauges.at_ms).clamp(0, GAUGES_MAX_AGE.as_millis() as i64);
    at.checked_add(SignedDuration::from_millis(in_ms - age_ms)).ok()
}
