//! Removing what dead consumers left behind, checking Redis' settings, and purging.

use std::collections::HashMap;
use std::time::Duration;

use redis::streams::StreamInfoConsumersReply;

use crate::connection::{ANSWER_TIMEOUT, Connection, Queue};
use crate::consumer::create_group;
use crate::error::QueueError;
use crate::keys::GROUP;

/// Entries looked at in one round.
const PAGE: usize = 1000;
/// Before every entry.
const FIRST: &str = "0-0";

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Entries that were delivered and never acknowledged.
    pub entries: usize,
    /// Consumers that hold nothing and do not come back.
    pub consumers: usize,
}

/// The settings of Redis that the promise of speed rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Such as `7.0.15`.
    pub version: String,
    /// Anything but `noeviction` may delete the stream under memory pressure.
    pub maxmemory_policy: String,
}

impl RedisSettings {
    /// Whether the version has the commands that we use: 6.2 or newer.
    pub fn is_new_enough(&self) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (6, 2)
    }
}

impl Queue {
    /// Creates the stream and its group, if they are not there.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn ensure_group(&self) -> Result<(), QueueError> {
        create_group(&mut self.connection(), &self.keys).await
    }

    /// Removes entries that nobody touched for `idle`, and consumers that have been silent for `silent` and hold none.
    ///
    /// An entry here is only a stale bell: a task that is still owed has no lease any more, and the sweep rings again.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn reap(&self, idle: Duration, silent: Duration) -> Result<Reaped, QueueError> {
        let mut connection = self.connection();
        let mut entries = 0;
        let mut start = FIRST.to_owned();
        loop {
            let (removed, next) = self.reap_entries(&mut connection, idle, &start).await?;
            entries += removed;
            if next == FIRST {
                break;
            }
            start = next;
        }
        let mut command = redis::cmd("XINFO");
        command.arg("CONSUMERS").arg(&self.keys.tasks).arg(GROUP);
        let reply: StreamInfoConsumersReply = connection.query(&command, ANSWER_TIMEOUT).await?;
        let mut consumers = 0;
        for consumer in reply.consumers {
            if consumer.pending == 0 && consumer.idle as u128 > silent.as_millis() {
                let mut command = redis::cmd("XGROUP");
                command.arg("DELCONSUMER").arg(&self.keys.tasks).arg(GROUP).arg(&consumer.name);
                connection.query::<u64>(&command, ANSWER_TIMEOUT).await?;
                consumers += 1;
            }
        }
        Ok(Reaped { entries, consumers })
    }

    /// Removes up to [`PAGE`] stale entries from `start` on; returns how many, and where to go on: [`FIRST`] at the end.
    async fn reap_entries(
        &self,
        connection: &mut Connection,
        idle: Duration,
        start: &str,
    ) -> Result<(usize, String), QueueError> {
        let mut command = redis::cmd("XAUTOCLAIM");
        command.arg(&self.keys.tasks).arg(GROUP).arg("reaper").arg(millis(idle)).arg(start);
        command.arg("COUNT").arg(PAGE).arg("JUSTID");
        let reply: Vec<redis::Value> = connection.query(&command, ANSWER_TIMEOUT).await?;
        let mut reply = reply.into_iter();
        let (Some(next), Some(ids)) = (reply.next(), reply.next()) else { return Ok((0, FIRST.to_owned())) };
        let invalid = |error: redis::ParsingError| QueueError::Unavailable(error.into());
        let next: String = redis::from_redis_value(next).map_err(invalid)?;
        let stale: Vec<String> = redis::from_redis_value(ids).map_err(invalid)?;
        if !stale.is_empty() {
            let mut pipeline = redis::pipe();
            pipeline.atomic();
            pipeline.cmd("XACK").arg(&self.keys.tasks).arg(GROUP).arg(&stale).ignore();
            pipeline.cmd("XDEL").arg(&self.keys.tasks).arg(&stale).ignore();
            connection.query_pipeline::<()>(&pipeline).await?;
        }
        Ok((stale.len(), next))
    }

    /// Reads the settings of Redis.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn settings(&self) -> Result<RedisSettings, QueueError> {
        let text: String = self.connection().query(&redis::cmd("INFO"), ANSWER_TIMEOUT).await?;
        let mut fields: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
        let mut field = |name| fields.remove(name).unwrap_or("unknown").trim().to_owned();
        Ok(RedisSettings { version: field("redis_version"), maxmemory_policy: field("maxmemory_policy") })
    }

    /// Deletes every key of the instance; returns how many there were. What is owed is enqueued again by the sweep, if a
    /// scheduler runs.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn purge(&self) -> Result<u64, QueueError> {
        self.connection().query(redis::cmd("DEL").arg(&self.keys.tasks).arg(&self.keys.gauges), ANSWER_TIMEOUT).await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
