//! The depth of the queue, read from Redis, and the gauges that the scheduler reads from PostgreSQL and publishes in
//! Redis. All figures count tasks.

use std::time::Duration;

use redis::streams::StreamInfoGroupsReply;

use crate::connection::{ANSWER_TIMEOUT, Connection, Queue};
use crate::error::QueueError;
use crate::keys::{GROUP, STREAMS, Stream};

/// Time between two publications of the gauges.
pub const GAUGES_PERIOD: Duration = Duration::from_secs(2);
/// Age from which published gauges are unknown.
pub const GAUGES_MAX_AGE: Duration = Duration::from_secs(10);

// Some publications may be missed or late before the backlog is unknown.
const _: () = assert!(GAUGES_MAX_AGE.as_millis() >= 4 * GAUGES_PERIOD.as_millis());

/// Depth of the queue, as Redis reports it: the sum of both streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depth {
    /// Number of entries, delivered or not.
    pub length: u64,
    /// Number of entries delivered and not acknowledged.
    pub in_flight: u64,
    /// Time of the reading by Redis' clock, in milliseconds since 1970.
    pub redis_now_ms: i64,
}

impl Depth {
    /// Number of entries not delivered yet.
    pub fn undelivered(&self) -> u64 {
        self.length.saturating_sub(self.in_flight)
    }
}

/// What the workers' group has read of each stream. A stream is first in, first out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The stream of all users.
    pub tasks: StreamDepth,
    /// The stream of the further tasks of deep users.
    pub bulk: StreamDepth,
    /// The users whose new tasks go to the bulk stream.
    pub deep_users: Vec<i64>,
    /// Time of the reading by Redis' clock, in milliseconds since 1970.
    pub redis_now_ms: i64,
}

/// Depth of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamDepth {
    /// Number of entries, delivered or not.
    pub length: u64,
    /// Number of entries delivered and not acknowledged.
    pub in_flight: u64,
    /// Time at which the newest delivered entry was added, in milliseconds since 1970 by Redis' clock; 0 if none was
    /// delivered.
    pub delivered_until_ms: i64,
}

impl Delivered {
    /// The sum of both streams.
    pub fn depth(&self) -> Depth {
        let Self { tasks, bulk, redis_now_ms, .. } = self;
        Depth {
            length: tasks.length + bulk.length,
            in_flight: tasks.in_flight + bulk.in_flight,
            redis_now_ms: *redis_now_ms,
        }
    }
}

impl StreamDepth {
    /// Number of entries not delivered yet.
    pub fn undelivered(&self) -> u64 {
        self.length.saturating_sub(self.in_flight)
    }
}

/// Figures from PostgreSQL, published by the scheduler and read by the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gauges {
    /// Time of the reading, in milliseconds since 1970 by PostgreSQL's clock. Gauges older than [`GAUGES_MAX_AGE`] are
    /// *unknown*, never zero.
    pub at_ms: i64,
    /// Number of unsettled tasks.
    pub unsettled: i64,
    /// Number of tasks that are due and not in a stream.
    pub due_not_enqueued: i64,
    /// Milliseconds until the next retry is due; −1 if no retry waits.
    pub next_due_ms: i64,
    /// Age of the oldest of the tasks that are due and not in a stream, since it became due, in milliseconds; −1 if there
    /// is none.
    pub oldest_due_ms: i64,
    /// Total number of tasks accepted.
    pub accepted_total: i64,
    /// Total number of attempts that ended, with or without a result.
    pub attempts_total: i64,
    /// Total number of attempts that ended in a retry.
    pub retried_total: i64,
    /// Total time of attempts, in milliseconds. The time of a running attempt counts as it passes.
    pub attempt_ms_total: i64,
}

impl Queue {
    /// Reads the depth of the queue; all zeros for streams or groups that do not exist yet.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails: the depth is then unknown, not zero.
    pub async fn depth(&self) -> Result<Depth, QueueError> {
        Ok(self.delivered().await?.depth())
    }

    /// Reads what was delivered of each stream, and the deep users; zeros as in [`depth`](Self::depth).
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails.
    pub async fn delivered(&self) -> Result<Delivered, QueueError> {
        let mut connection = self.connection();
        let mut pipeline = redis::pipe();
        for stream in STREAMS {
            pipeline.cmd("XLEN").arg(self.keys.stream(stream));
            pipeline.cmd("EXISTS").arg(self.keys.stream(stream));
        }
        pipeline.cmd("TIME");
        let (tasks, tasks_exist, bulk, bulk_exists, (seconds, micros)): (u64, bool, u64, bool, (i64, i64)) =
            connection.query_pipeline(&pipeline).await?;
        let tasks = self.stream_depth(&mut connection, Stream::Tasks, tasks, tasks_exist).await?;
        let bulk = self.stream_depth(&mut connection, Stream::Bulk, bulk, bulk_exists).await?;
        // Read last: the entries of a user who is no longer deep by now were all delivered.
        let deep_users = connection.query(redis::cmd("SMEMBERS").arg(&self.keys.deep), ANSWER_TIMEOUT).await?;
        Ok(Delivered { tasks, bulk, deep_users, redis_now_ms: seconds * 1000 + micros / 1000 })
    }

    async fn stream_depth(
        &self,
        connection: &mut Connection,
        stream: Stream,
        length: u64,
        exists: bool,
    ) -> Result<StreamDepth, QueueError> {
        let mut depth = StreamDepth { length, ..StreamDepth::default() };
        if exists {
            let mut command = redis::cmd("XINFO");
            command.arg("GROUPS").arg(self.keys.stream(stream));
            let reply: StreamInfoGroupsReply = connection.query(&command, ANSWER_TIMEOUT).await?;
            if let Some(group) = reply.groups.into_iter().find(|group| group.name == GROUP) {
                depth.in_flight = group.pending as u64;
                depth.delivered_until_ms = milliseconds(&group.last_delivered_id);
            }
        }
        Ok(depth)
    }

    /// Replaces the published gauges.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails. The former gauges stay, and are unknown once they are older than 10 s.
    pub async fn publish_gauges(&self, gauges: &Gauges) -> Result<(), QueueError> {
        let Gauges {
            at_ms,
            unsettled,
            due_not_enqueued,
            next_due_ms,
            oldest_due_ms,
            accepted_total,
            attempts_total,
            retried_total,
            attempt_ms_total,
        } = gauges;
        let mut command = redis::cmd("HSET");
        command.arg(&self.keys.gauges);
        for (field, value) in [
            ("at_ms", at_ms),
            ("unsettled", unsettled),
            ("due_not_enqueued", due_not_enqueued),
            ("next_due_ms", next_due_ms),
            ("oldest_due_ms", oldest_due_ms),
            ("accepted_total", accepted_total),
            ("attempts_total", attempts_total),
            ("retried_total", retried_total),
            ("attempt_ms_total", attempt_ms_total),
        ] {
            command.arg(field).arg(value);
        }
        self.connection().query::<u64>(&command, ANSWER_TIMEOUT).await.map(drop)
    }
}

/// The time of an entry id, `<milliseconds>-<sequence>`.
pub(crate) fn milliseconds(entry_id: &str) -> i64 {
    entry_id.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_id_contains_its_time() {
        assert_eq!(milliseconds("1700000000123-4"), 1_700_000_000_123);
        assert_eq!(milliseconds("0-0"), 0);
    }
}
