//! What Redis knows of one task and of the workers that read from it. `pulse-explain` draws the conclusions.

use std::collections::HashMap;
use std::time::Duration;

use redis::streams::{StreamInfoConsumersReply, StreamRangeReply};
use uuid::Uuid;

use crate::connection::{ANSWER_TIMEOUT, Connection, Queue};
use crate::consumer::parse;
use crate::depth::Delivered;
use crate::error::QueueError;
use crate::keys::{GROUP, STREAMS, Stream};

/// Number of entries read by one command.
const PAGE: usize = 1000;
/// Maximum number of commands that search a stream for the entry.
const PAGES: usize = 20;
/// Time around the enqueueing in PostgreSQL within which the entry was added, in milliseconds.
const MARGIN_MS: i64 = 5000;

/// What Redis knows of a queue and of one of its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFacts {
    /// The task's entry.
    pub entry: EntryFacts,
    /// Number of entries that no worker has read.
    pub undelivered: u64,
    /// The workers that have read from a stream, by name.
    pub consumers: Vec<ConsumerFacts>,
    /// Whether the user's further tasks go to the bulk stream.
    pub user_is_deep: bool,
    /// Whether Redis has used its `maxmemory` and refuses entries. Unknown counts as false.
    pub is_full: bool,
}

/// Where the entry of a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryFacts {
    /// The task is not enqueued, so it has none.
    NotEnqueued,
    /// On neither stream.
    Missing,
    /// There are too many entries of that time to search.
    Unknown,
    /// No worker has read it.
    Undelivered {
        /// Whether it is on the bulk stream.
        bulk: bool,
    },
    /// A worker has read it and not acknowledged it.
    Delivered {
        /// Name of the worker.
        worker: String,
        /// Time since the last delivery or heartbeat, in milliseconds.
        idle_ms: u64,
        /// Number of deliveries.
        deliveries: u64,
    },
}

/// A worker, as Redis knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerFacts {
    /// Name of the worker.
    pub worker: String,
    /// Number of entries that it has read and not acknowledged.
    pub in_flight: u64,
    /// Time since its last command on a stream, in milliseconds.
    pub idle_ms: u64,
}

impl Queue {
    /// Reads where the entry of a task is, which was enqueued `enqueued_ago`; `None` if it is not enqueued. Reads at most
    /// 20,000 entries of each stream.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails: nothing is known then.
    pub async fn facts(
        &self,
        task_id: Uuid,
        user_id: i64,
        enqueued_ago: Option<Duration>,
    ) -> Result<QueueFacts, QueueError> {
        let delivered = self.delivered().await?;
        let mut connection = self.probe_connection();
        let entry = match enqueued_ago {
            None => EntryFacts::NotEnqueued,
            Some(ago) => self.find_entry(&mut connection, task_id, &delivered, ago).await?,
        };
        Ok(QueueFacts {
            entry,
            undelivered: delivered.depth().undelivered(),
            consumers: self.consumers(&mut connection).await?,
            user_is_deep: delivered.deep_users.contains(&user_id),
            is_full: self.is_full().await,
        })
    }

    async fn find_entry(
        &self,
        connection: &mut Connection,
        task_id: Uuid,
        delivered: &Delivered,
        ago: Duration,
    ) -> Result<EntryFacts, QueueError> {
        let at_ms = delivered.redis_now_ms - i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        let mut is_whole = true;
        for (stream, depth) in STREAMS.into_iter().zip([delivered.tasks, delivered.bulk]) {
            if depth.length == 0 {
                continue;
            }
            match self.search(connection, stream, task_id, (at_ms - MARGIN_MS).max(0), at_ms + MARGIN_MS).await? {
                Search::Found(id) => return self.delivery(connection, stream, &id).await,
                Search::Missing => {}
                Search::Unfinished => is_whole = false,
            }
        }
        Ok(if is_whole { EntryFacts::Missing } else { EntryFacts::Unknown })
    }

    /// Searches the entries that were added between two times, in milliseconds since 1970 by Redis' clock.
    async fn search(
        &self,
        connection: &mut Connection,
        stream: Stream,
        task_id: Uuid,
        from_ms: i64,
        until_ms: i64,
    ) -> Result<Search, QueueError> {
        let mut start = from_ms.to_string();
        for _ in 0..PAGES {
            let mut command = redis::cmd("XRANGE");
            command.arg(self.keys.stream(stream)).arg(&start).arg(until_ms).arg("COUNT").arg(PAGE);
            let page: StreamRangeReply = connection.query(&command, ANSWER_TIMEOUT).await?;
            let (entries, last) = (page.ids.len(), page.ids.last().map(|entry| entry.id.clone()));
            let found = page.ids.into_iter().find_map(|entry| {
                let id = entry.id.clone();
                parse(stream, entry).is_ok_and(|delivery| delivery.task_id == task_id).then_some(id)
            });
            match (found, last) {
                (Some(id), _) => return Ok(Search::Found(id)),
                (None, Some(last)) if entries == PAGE => start = format!("({last}"),
                (None, _) => return Ok(Search::Missing),
            }
        }
        Ok(Search::Unfinished)
    }

    async fn delivery(&self, connection: &mut Connection, stream: Stream, id: &str) -> Result<EntryFacts, QueueError> {
        let mut command = redis::cmd("XPENDING");
        command.arg(self.keys.stream(stream)).arg(GROUP).arg(id).arg(id).arg(1);
        let pending: Vec<(String, String, u64, u64)> = match connection.query(&command, ANSWER_TIMEOUT).await {
            Err(QueueError::NoGroup) => Vec::new(),
            answer => answer?,
        };
        Ok(match pending.into_iter().next() {
            None => EntryFacts::Undelivered { bulk: stream == Stream::Bulk },
            Some((_, worker, idle_ms, deliveries)) => EntryFacts::Delivered { worker, idle_ms, deliveries },
        })
    }

    /// The consumers of both streams. One may be silent on one of the streams only.
    async fn consumers(&self, connection: &mut Connection) -> Result<Vec<ConsumerFacts>, QueueError> {
        let mut consumers: HashMap<String, (u64, u64)> = HashMap::new();
        for stream in STREAMS {
            let mut command = redis::cmd("XINFO");
            command.arg("CONSUMERS").arg(self.keys.stream(stream)).arg(GROUP);
            let reply: StreamInfoConsumersReply = match connection.query(&command, ANSWER_TIMEOUT).await {
                Ok(reply) => reply,
                // No worker has read from this stream yet.
                Err(error) if error.is_answer() => continue,
                Err(error) => return Err(error),
            };
            for consumer in reply.consumers {
                let (in_flight, idle_ms) = consumers.entry(consumer.name).or_insert((0, u64::MAX));
                *in_flight += consumer.pending as u64;
                *idle_ms = (*idle_ms).min(consumer.idle as u64);
            }
        }
        let facts = |(worker, (in_flight, idle_ms))| ConsumerFacts { worker, in_flight, idle_ms };
        let mut consumers: Vec<ConsumerFacts> = consumers.into_iter().map(facts).collect();
        consumers.sort_by(|a, b| a.worker.cmp(&b.worker));
        Ok(consumers)
    }

    /// Whether the settings say so. A user without the permission for `INFO` sees the effect only.
    async fn is_full(&self) -> bool {
        let settings = self.settings().await.unwrap_or_default();
        settings.iter().any(|setting| setting.name == "memory" && setting.fix.is_some())
    }
}

/// The result of a search.
enum Search {
    /// The id of the entry.
    Found(String),
    /// There is no such entry.
    Missing,
    /// There are more entries than were read.
    Unfinished,
}
