//! The state of the queue, as derived from the newest samples.

use jiff::{SignedDuration, Timestamp};

use crate::observed::{Depth, GAUGES_MAX_AGE, Gauges};

/// Workers are started this long before a retry falls due, and are not removed when one is due within this time.
pub(crate) const WAKE_LEAD: SignedDuration = SignedDuration::from_secs(30);

/// The whole backlog. Figures are numbers of tasks unless stated otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QueueState {
    /// Due tasks that no worker has.
    pub(crate) waiting: u64,
    pub(crate) in_flight: u64,
    /// Age of the oldest waiting task, in seconds.
    pub(crate) oldest_age: Option<u64>,
    /// Time when the next retry falls due, by the operator's clock.
    pub(crate) next_due: Option<Timestamp>,
    /// Tasks were accepted since the previous sample.
    pub(crate) arrived: bool,
}

/// What is known of the queue at a given time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Estimate {
    /// The newest sample has the whole backlog.
    Whole(QueueState),
    /// Few samples were incomplete since: the last complete state, and what the newest sample has from Redis, which is
    /// a lower bound.
    Stale { last: Option<QueueState>, lower_bound: Option<Depth> },
    /// Too many samples in a row were incomplete or absent.
    Unknown { lower_bound: Option<Depth> },
}

impl QueueState {
    /// Combines the depth from Redis and the gauges from PostgreSQL of a sample taken `at`.
    pub(crate) fn new(at: Timestamp, depth: &Depth, gauges: &Gauges, arrived: bool) -> Self {
        let unsigned = |count: i64| count.max(0).cast_unsigned();
        let in_redis = depth.undelivered.saturating_add(depth.in_flight);
        // After Redis lost its data, PostgreSQL counts the lost tasks as enqueued until the next requeue. As long as no
        // retry waits, every unsettled task is due.
        let lost = if gauges.next_due_ms < 0 && in_redis == 0 { unsigned(gauges.unsettled) } else { 0 };
        let due = unsigned(gauges.due_not_enqueued);
        let oldest_due = (due > 0 && gauges.oldest_due_ms >= 0).then(|| unsigned(gauges.oldest_due_ms));
        Self {
            waiting: depth.undelivered.saturating_add(due).max(lost),
            in_flight: depth.in_flight,
            oldest_age: depth.oldest_undelivered_ms.max(oldest_due).map(|age_ms| age_ms / 1000),
            next_due: next_due(at, depth, gauges),
            arrived,
        }
    }

    /// A state with what Redis alone knows.
    pub(crate) fn at_least(depth: &Depth) -> Self {
        Self {
            waiting: depth.undelivered,
            in_flight: depth.in_flight,
            oldest_age: depth.oldest_undelivered_ms.map(|age_ms| age_ms / 1000),
            next_due: None,
            arrived: false,
        }
    }

    /// Whether a retry is due within [`WAKE_LEAD`].
    pub(crate) fn retry_is_near(&self, now: Timestamp) -> bool {
        self.next_due.is_some_and(|due| due.duration_since(now) <= WAKE_LEAD)
    }
}

fn next_due(at: Timestamp, depth: &Depth, gauges: &Gauges) -> Option<Timestamp> {
    let in_ms = Some(gauges.next_due_ms).filter(|in_ms| *in_ms >= 0)?;
    let age_ms = (depth.redis_now_ms - gauges.at_ms).clamp(0, GAUGES_MAX_AGE.as_millis() as i64);
    at.checked_add(SignedDuration::from_millis(in_ms - age_ms)).ok()
}
