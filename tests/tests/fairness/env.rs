//! A private Redis with the queue of one instance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pulse::datastores::{DataDir, Redis, RedisConfig};
use pulse_queue::{Acknowledger, Consumer, Delivery, Entry, EntryId, Queue, QueueConfig};
use redis::FromRedisValue;
use redis::streams::StreamRangeReply;
use uuid::Uuid;

/// Queue of one instance, without any role.
pub(crate) struct QueueEnv {
    pub(crate) queue: Queue,
    pub(crate) url: String,
    _redis: Redis,
    _data: DataDir,
}

impl QueueEnv {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let data = DataDir::open(None)?;
        let redis = Redis::start(RedisConfig::in_dir(data.path().join("redis"))).await?;
        let url = redis.url();
        let queue =
            Queue::connect_lazy(&QueueConfig { url: url.clone(), ca: None, identity: None, instance: "test".into() })?;
        queue.ensure_groups().await?;
        Ok(Self { queue, url, _redis: redis, _data: data })
    }

    pub(crate) fn consumer(&self, name: &str) -> Consumer {
        Consumer::new(&self.queue, name.into())
    }

    /// Enqueues `count` tasks of a user with one call, and returns them in order.
    pub(crate) async fn enqueue(&self, user_id: i64, count: usize) -> anyhow::Result<Vec<Uuid>> {
        let entries: Vec<Entry> = (0..count).map(|_| entry(user_id)).collect();
        self.queue.publish(&entries).await?;
        Ok(entries.into_iter().map(|entry| entry.task_id).collect())
    }

    pub(crate) async fn command<T: FromRedisValue>(&self, words: &[&str]) -> anyhow::Result<T> {
        let mut connection = redis::Client::open(self.url.as_str())?.get_multiplexed_async_connection().await?;
        Ok(redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await?)
    }

    pub(crate) async fn acknowledge(&self, deliveries: &[Delivery]) -> anyhow::Result<()> {
        let entry_ids: Vec<EntryId> = deliveries.iter().map(|delivery| delivery.entry_id.clone()).collect();
        Ok(Acknowledger::new(&self.queue, "test".into()).acknowledge(&entry_ids).await?)
    }

    /// Checks that the entries of both streams are counted exactly, and returns their number by user.
    pub(crate) async fn counts(&self) -> anyhow::Result<BTreeMap<i64, i64>> {
        let mut entries: BTreeMap<i64, i64> = BTreeMap::new();
        for stream in ["pulse:{test}:tasks", "pulse:{test}:bulk"] {
            let found: StreamRangeReply = self.command(&["XRANGE", stream, "-", "+"]).await?;
            for entry in found.ids {
                *entries.entry(entry.get("user").expect("every entry has a user")).or_default() += 1;
            }
        }
        let counted: BTreeMap<i64, i64> = self.command(&["HGETALL", "pulse:{test}:backlog"]).await?;
        assert_eq!(counted, entries);
        Ok(counted)
    }

    pub(crate) async fn deep_users(&self) -> anyhow::Result<BTreeSet<i64>> {
        self.command(&["SMEMBERS", "pulse:{test}:deep"]).await
    }
}

pub(crate) fn entry(user_id: i64) -> Entry {
    Entry { task_id: Uuid::new_v4(), user_id, bytes: 0, traceparent: None }
}

pub(crate) fn task_ids(deliveries: &[Delivery]) -> Vec<Uuid> {
    deliveries.iter().map(|delivery| delivery.task_id).collect()
}

/// Reads once, without waiting.
pub(crate) async fn read(consumer: &mut Consumer, count: usize) -> anyhow::Result<Vec<Delivery>> {
    Ok(consumer.read(count, Duration::ZERO).await?)
}
