//! What a sample says, put together.

use jiff::{SignedDuration, Timestamp};
use pulse_queue::{Depth, Gauges};

use super::sample::GAUGES_MAX_AGE;

/// The workers are there so long before a retry falls due, and do not go once one is as close.
pub(super) const WAKE_LEAD: SignedDuration = SignedDuration::from_secs(30);

/// The whole backlog. Figures count tasks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct QueueState {
    pub(super) backlog: u64,
    pub(super) in_flight: u64,
    /// Age of the oldest task that is due, in seconds.
    pub(super) oldest_age: Option<u64>,
    /// When the next retry falls due, by the operator's clock.
    pub(super) next_due: Option<Timestamp>,
    /// Tasks were accepted since the queue before.
    pub(super) arrived: bool,
}

/// The part of the backlog that Redis knows: a lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LowerBound {
    pub(super) length: u64,
    pub(super) in_flight: u64,
}

/// What is known at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Estimate {
    /// The whole backlog, just now.
    Whole(QueueState),
    /// The newest samples did not show it: what was known before, and what they showed.
    Stale { before: Option<QueueState>, part: Option<LowerBound> },
    /// Not known any more.
    Unknown { part: Option<LowerBound> },
}

impl QueueState {
    /// Of what Redis and PostgreSQL know, looked at `at`; `arrived` tasks since the last look, or not.
    pub(super) fn new(
        at: Timestamp,
        oldest_entry_ms: Option<i64>,
        depth: &Depth,
        gauges: &Gauges,
        arrived: bool,
    ) -> Self {
        // A Redis that came back empty says nothing of what was in it, and PostgreSQL takes it for enqueued until the
        // sweep looks. Where no retry waits, all that is unsettled is due.
        let forgotten = if gauges.next_due_ms < 0 { gauges.unsettled.max(0).cast_unsigned() } else { 0 };
        Self {
            backlog: depth.length.saturating_add(gauges.due_not_enqueued.max(0).cast_unsigned()).max(forgotten),
            in_flight: depth.in_flight,
            oldest_age: oldest_age(oldest_entry_ms, depth, gauges),
            next_due: next_due(at, depth, gauges),
            arrived,
        }
    }

    /// Whether a retry is due, or so soon that workers should be there.
    pub(super) fn wakes(&self, now: Timestamp) -> bool {
        self.next_due.is_some_and(|due| due.duration_since(now) <= WAKE_LEAD)
    }

    /// Whether more workers would find something to do.
    pub(super) fn has_waiting(&self) -> bool {
        self.backlog > self.in_flight
    }
}

/// PostgreSQL's age of the oldest unsettled task includes the time that it waited for a retry, which no worker can shorten.
/// So what is in the stream counts from when it got there.
fn oldest_age(oldest_entry_ms: Option<i64>, depth: &Depth, gauges: &Gauges) -> Option<u64> {
    let owed_ms = gauges.oldest_age_ms.max(0);
    let queued_ms = oldest_entry_ms.map(|at_ms| (depth.redis_now_ms - at_ms).max(0));
    let age_ms = match queued_ms {
        Some(queued_ms) if gauges.due_not_enqueued <= 0 => queued_ms.min(owed_ms),
        None if gauges.due_not_enqueued <= 0 => return None,
        _ => owed_ms,
    };
    Some(age_ms.cast_unsigned() / 1000)
}

fn next_due(at: Timestamp, depth: &Depth, gauges: &Gauges) -> Option<Timestamp> {
    let in_ms = Some(gauges.next_due_ms).filter(|in_ms| *in_ms >= 0)?;
    let age_ms = (depth.redis_now_ms - gauges.at_ms).clamp(0, GAUGES_MAX_AGE.as_millis() as i64);
    at.checked_add(SignedDuration::from_millis(in_ms - age_ms)).ok()
}
