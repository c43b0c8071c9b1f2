//! Removal of stale deliveries and dead consumers, settings of the Redis server, and purge.

use std::collections::HashMap;
use std::time::Duration;

use redis::streams::StreamInfoConsumersReply;

use crate::connection::{ANSWER_TIMEOUT, Connection, Queue};
use crate::consumer::create_groups;
use crate::error::QueueError;
use crate::keys::{GROUP, Keys, STREAMS, Stream};
use crate::scripts;

/// Maximum number of entries checked by one command.
const PAGE: usize = 1000;
/// An entry id before all others.
const FIRST: &str = "0-0";

/// Counts of what [`Queue::reap`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Number of entries that were delivered and never acknowledged.
    pub entries: usize,
    /// Number of consumers without pending entries that no longer read.
    pub consumers: usize,
}

/// Settings of the Redis server that the queue depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Version, such as `7.0.15`.
    pub version: String,
    /// Eviction policy. Any policy but `noeviction` may delete a stream when memory is full.
    pub maxmemory_policy: String,
}

impl RedisSettings {
    /// Returns true if the version has all commands that are used: 6.2 or newer.
    pub fn is_new_enough(&self) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (6, 2)
    }
}

impl Queue {
    /// Creates the streams and their consumer groups if they do not exist.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails.
    pub async fn ensure_groups(&self) -> Result<(), QueueError> {
        create_groups(&mut self.connection(), &self.keys).await
    }

    /// Removes pending entries that have been idle for `idle`, and consumers without pending entries that have not read
    /// for `silent`.
    ///
    /// Stale entries are only wake-ups: the lease of an unsettled task has expired by then, and the requeue job
    /// enqueues the task again.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails or the group does not exist; some entries may have been removed.
    pub async fn reap(&self, idle: Duration, silent: Duration) -> Result<Reaped, QueueError> {
        let mut connection = self.connection();
        let mut entries = 0;
        // By consumer: its number of pending entries, and the time since its last read, in milliseconds.
        let mut consumers: HashMap<String, (usize, usize)> = HashMap::new();
        for stream in STREAMS {
            let mut start = FIRST.to_owned();
            loop {
                let (removed, next) = self.reap_entries(&mut connection, stream, idle, &start).await?;
                entries += removed;
                if next == FIRST {
                    break;
                }
                start = next;
            }
            let mut command = redis::cmd("XINFO");
            command.arg("CONSUMERS").arg(self.keys.stream(stream)).arg(GROUP);
            let reply: StreamInfoConsumersReply = connection.query(&command, ANSWER_TIMEOUT).await?;
            for consumer in reply.consumers {
                let (pending, idle) = consumers.entry(consumer.name).or_insert((0, usize::MAX));
                (*pending, *idle) = (*pending + consumer.pending, consumer.idle.min(*idle));
            }
        }
        // A consumer may be silent on one of the streams only.
        consumers.retain(|_, (pending, idle)| *pending == 0 && *idle as u128 > silent.as_millis());
        for name in consumers.keys() {
            for stream in STREAMS {
                let mut command = redis::cmd("XGROUP");
                command.arg("DELCONSUMER").arg(self.keys.stream(stream)).arg(GROUP).arg(name);
                connection.query::<u64>(&command, ANSWER_TIMEOUT).await?;
            }
        }
        Ok(Reaped { entries, consumers: consumers.len() })
    }

    /// Removes up to [`PAGE`] stale entries of a stream from `start` on. Returns their number and the start of the next page, which
    /// is [`FIRST`] after the last page.
    async fn reap_entries(
        &self,
        connection: &mut Connection,
        stream: Stream,
        idle: Duration,
        start: &str,
    ) -> Result<(usize, String), QueueError> {
        let mut command = redis::cmd("XAUTOCLAIM");
        command.arg(self.keys.stream(stream)).arg(GROUP).arg("reaper").arg(millis(idle)).arg(start);
        command.arg("COUNT").arg(PAGE).arg("JUSTID");
        let reply: Vec<redis::Value> = connection.query(&command, ANSWER_TIMEOUT).await?;
        let mut reply = reply.into_iter();
        let (Some(next), Some(ids)) = (reply.next(), reply.next()) else { return Ok((0, FIRST.to_owned())) };
        let invalid = |error: redis::ParsingError| QueueError::Unavailable(error.into());
        let next: String = redis::from_redis_value(next).map_err(invalid)?;
        let stale: Vec<String> = redis::from_redis_value(ids).map_err(invalid)?;
        if !stale.is_empty() {
            let ids: Vec<&str> = stale.iter().map(String::as_str).collect();
            let (tasks, bulk): (&[&str], &[&str]) = match stream {
                Stream::Tasks => (&ids, &[]),
                Stream::Bulk => (&[], &ids),
            };
            connection.run_script::<()>(&scripts::remove(&self.keys, tasks, bulk)).await?;
        }
        Ok((stale.len(), next))
    }

    /// Reads the settings of the Redis server.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails.
    pub async fn settings(&self) -> Result<RedisSettings, QueueError> {
        let text: String = self.connection().query(&redis::cmd("INFO"), ANSWER_TIMEOUT).await?;
        let mut fields: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
        let mut field = |name| fields.remove(name).unwrap_or("unknown").trim().to_owned();
        Ok(RedisSettings { version: field("redis_version"), maxmemory_policy: field("maxmemory_policy") })
    }

    /// Deletes all keys of the instance and returns their number. Unsettled tasks are enqueued again by the requeue
    /// job, if a scheduler runs.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails.
    pub async fn purge(&self) -> Result<u64, QueueError> {
        let Keys { tasks, bulk, backlog, deep, gauges } = &self.keys;
        let mut command = redis::cmd("DEL");
        command.arg(tasks).arg(bulk).arg(backlog).arg(deep).arg(gauges);
        self.connection().query(&command, ANSWER_TIMEOUT).await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
