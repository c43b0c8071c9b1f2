//! Removal of stale deliveries and dead consumers, settings of the Redis server, and purge.

use std::collections::HashMap;
use std::time::Duration;

use redis::streams::StreamInfoConsumersReply;

use crate::connection::{ANSWER_TIMEOUT, Connection, Queue};
use crate::consumer::create_groups;
use crate::error::QueueError;
use crate::fault::Fault;
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

/// A property of the Redis server that the queue depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSetting {
    /// Name of the setting, or of the field of `INFO`.
    pub name: &'static str,
    /// Current value.
    pub value: String,
    /// What to do; `None` if the value is good.
    pub fix: Option<&'static str>,
    /// A remark on a value that is not wrong.
    pub note: Option<&'static str>,
}

/// The memory of the Redis server, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisMemory {
    /// What it uses.
    pub used: u64,
    /// Its `maxmemory`, if it has one.
    pub limit: Option<u64>,
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

    /// Reads version, role, memory and eviction policy with `INFO`. Without the permission for it, only says so: the
    /// roles do not need it.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails.
    pub async fn settings(&self) -> Result<Vec<RedisSetting>, QueueError> {
        match self.probe_connection().query::<String>(&redis::cmd("INFO"), ANSWER_TIMEOUT).await {
            Ok(text) => Ok(settings(&text)),
            Err(error) if error.fault() == Fault::Auth && !error.is_login_refused() => Ok(vec![RedisSetting {
                name: "maxmemory-policy",
                value: "unknown".into(),
                fix: None,
                note: Some("allow INFO for this Redis user (+info), so that its settings can be checked"),
            }]),
            Err(error) => Err(error),
        }
    }

    /// The memory of Redis; `None` without the permission to read it.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails.
    pub async fn memory(&self) -> Result<Option<RedisMemory>, QueueError> {
        match self.probe_connection().query::<String>(redis::cmd("INFO").arg("memory"), ANSWER_TIMEOUT).await {
            Ok(text) => Ok(Some(memory(&text))),
            Err(error) if error.fault() == Fault::Auth && !error.is_login_refused() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Time at which the gauges of this instance were published, in milliseconds since 1970 by PostgreSQL's clock;
    /// `None` if this Redis has none.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails.
    pub async fn gauges_published_at_ms(&self) -> Result<Option<i64>, QueueError> {
        let mut command = redis::cmd("HGET");
        command.arg(&self.keys.gauges).arg("at_ms");
        self.probe_connection().query(&command, ANSWER_TIMEOUT).await
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

/// The memory in an answer to `INFO`.
fn memory(info: &str) -> RedisMemory {
    let bytes = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
    };
    let limit = bytes("maxmemory").filter(|limit| *limit > 0);
    RedisMemory { used: bytes("used_memory").unwrap_or(0), limit }
}

/// Judges the answer to `INFO`.
fn settings(info: &str) -> Vec<RedisSetting> {
    let fields: HashMap<&str, &str> = info.lines().filter_map(|line| line.split_once(':')).collect();
    let field = |name| fields.get(name).map_or("unknown", |value| value.trim());
    let setting = |name, value: &str, good: bool, fix| RedisSetting {
        name,
        value: value.into(),
        fix: (!good).then_some(fix),
        note: None,
    };
    let (version, role, policy) = (field("redis_version"), field("role"), field("maxmemory_policy"));
    let RedisMemory { used, limit } = memory(info);
    let memory = match limit {
        None => format!("{}, without a limit", field("used_memory_human")),
        Some(_) => format!("{} of {}", field("used_memory_human"), field("maxmemory_human")),
    };
    vec![
        setting("version", version, is_new_enough(version), "use Redis 6.2 or newer, or Valkey"),
        setting("role", role, role != "slave", "point the Redis URL at the primary: a replica accepts no writes"),
        setting(
            "memory",
            &memory,
            limit.is_none_or(|limit| used < limit),
            "Redis is full: raise maxmemory, or remove other data; workers poll PostgreSQL meanwhile",
        ),
        setting(
            "maxmemory-policy",
            policy,
            policy == "noeviction",
            "set maxmemory-policy noeviction: other policies may evict the queue",
        ),
    ]
}

/// Returns true if the version has all commands that are used: 6.2 or newer.
fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (6, 2)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_of_a_full_old_replica_that_evicts_names_each_fix() {
        let info = "redis_version:6.0.16\r\nrole:slave\r\nused_memory:2048\r\nmaxmemory:1024\r\nmaxmemory_policy:allkeys-lru\r\n";
        assert!(settings(info).iter().all(|setting| setting.fix.is_some()), "{:?}", settings(info));
        let info =
            "redis_version:6.2.0\r\nrole:master\r\nused_memory:2048\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n";
        assert!(settings(info).iter().all(|setting| setting.fix.is_none()), "{:?}", settings(info));
    }
}
