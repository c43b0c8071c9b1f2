//! Which tasks count as lost.

use chrono::{DateTime, TimeDelta, Utc};
use pulse_queue::{Delivered, StreamDepth};
use pulse_store::LostBounds;

/// Time after which an enqueued task without a lease may count as lost.
const LOST_AFTER: TimeDelta = TimeDelta::seconds(10);
/// Maximum difference between the clocks of Redis and PostgreSQL after their offset was measured.
const CLOCK_MARGIN: TimeDelta = TimeDelta::seconds(1);

/// Computes which tasks count as lost. A stream is first in, first out: every task that was enqueued before its newest
/// delivery has been delivered, and if it has no undelivered entry, every task has. A long backlog alone is not a loss.
///
/// A deep user's task may be on either stream, so it is lost if neither can deliver it.
pub(crate) fn lost_bounds(delivered: Delivered, now: DateTime<Utc>, is_whole: bool) -> LostBounds {
    let Delivered { tasks, bulk, deep_users, redis_now_ms } = delivered;
    let (lost_before, tasks_until) = stream_bounds(&tasks, redis_now_ms, now);
    let (bulk_lost_before, bulk_until) = stream_bounds(&bulk, redis_now_ms, now);
    let delivered_until = match (deep_users.is_empty(), is_whole) {
        (true, _) => tasks_until,
        (false, true) => tasks_until.max(bulk_until),
        (false, false) => tasks_until.min(bulk_until),
    };
    LostBounds {
        lost_before,
        deep_lost_before: lost_before.min(bulk_lost_before),
        deep_users,
        from: DateTime::UNIX_EPOCH,
        // A task is enqueued when it is due, or later.
        until: delivered_until.min(lost_before),
    }
}

/// The time before which an enqueued task of a stream is lost, and the time before which all of its entries were
/// delivered.
fn stream_bounds(stream: &StreamDepth, redis_now_ms: i64, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
    let latest = now - LOST_AFTER;
    if stream.undelivered() == 0 {
        return (latest, now);
    }
    // The time of the newest delivered entry, by PostgreSQL's clock.
    let delivered_until = now - TimeDelta::milliseconds(redis_now_ms - stream.delivered_until_ms);
    (latest.min(delivered_until - CLOCK_MARGIN), delivered_until + CLOCK_MARGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("valid")
    }

    /// What was delivered, read while Redis' clock is an hour behind. A stream is its length, the number in flight, and
    /// for how long its newest delivered entry had been there, in seconds.
    fn delivered(tasks: (u64, u64, i64), bulk: (u64, u64, i64), deep_users: &[i64]) -> Delivered {
        let redis_now_ms = at(-3600).timestamp_millis();
        let stream =
            |(length, in_flight, ago)| StreamDepth { length, in_flight, delivered_until_ms: redis_now_ms - ago * 1000 };
        Delivered { tasks: stream(tasks), bulk: stream(bulk), deep_users: deep_users.into(), redis_now_ms }
    }

    /// Bounds of the tasks of users who are not deep.
    fn bounds(tasks: (u64, u64, i64)) -> (DateTime<Utc>, DateTime<Utc>) {
        let bounds = lost_bounds(delivered(tasks, (0, 0, 0), &[]), at(0), true);
        (bounds.lost_before, bounds.until)
    }

    #[test]
    fn drained_stream_makes_every_old_task_lost() {
        assert_eq!(bounds((0, 0, 99)), (at(-10), at(-10)));
        assert_eq!(bounds((5, 5, 99)), (at(-10), at(-10)));
    }

    #[test]
    fn long_backlog_makes_no_undelivered_task_lost() {
        assert_eq!(bounds((1_000_000, 16, 300)), (at(-301), at(-301)));
    }

    #[test]
    fn recent_delivery_does_not_shorten_lost_after() {
        assert_eq!(bounds((9, 1, 0)).0, at(-10));
    }

    #[test]
    fn backlog_of_deep_users_delays_only_the_search_for_their_lost_tasks() {
        let delivered = delivered((5, 5, 1), (300_000, 16, 600), &[7]);
        let bounds = lost_bounds(delivered.clone(), at(0), false);
        assert_eq!((bounds.lost_before, bounds.deep_lost_before), (at(-10), at(-601)));
        assert_eq!((bounds.deep_users, bounds.until), (vec![7], at(-599)), "the backlog is not read");
        assert_eq!(lost_bounds(delivered, at(0), true).until, at(-10));
    }

    #[test]
    fn task_of_a_deep_user_is_lost_only_if_neither_stream_can_deliver_it() {
        let bounds = lost_bounds(delivered((9000, 16, 300), (5, 5, 1), &[7]), at(0), false);
        assert_eq!((bounds.lost_before, bounds.deep_lost_before), (at(-301), at(-301)));
    }
}
