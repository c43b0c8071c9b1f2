//! Reading deliveries, and acknowledging them.

use std::time::Duration;

use redis::streams::{StreamId, StreamReadReply};
use uuid::Uuid;

use crate::connection::{ANSWER_TIMEOUT, Connection, Queue};
use crate::error::QueueError;
use crate::keys::{GROUP, Keys};

/// A task id as it was read from Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The entry, to be acknowledged.
    pub entry_id: String,
    /// The task.
    pub task_id: Uuid,
}

/// Reads deliveries, on a connection of its own.
pub struct Consumer {
    connection: Connection,
    keys: Keys,
    name: String,
    acknowledger: Acknowledger,
}

impl Consumer {
    /// `name` is unique to this start of the process, and never used again: a consumer that comes back under an old
    /// name hides the death of the former.
    pub fn new(queue: &Queue, name: String) -> Self {
        let acknowledger = Acknowledger::new(queue, name.clone());
        Self { connection: queue.connection(), keys: queue.keys.clone(), name, acknowledger }
    }

    /// Waits up to `block` for deliveries, and returns at most `count` of them.
    ///
    /// After a reconnect it first returns what was delivered to us and may not have arrived. A group that is gone is
    /// created anew, from the first entry.
    ///
    /// # Errors
    /// [`QueueError`], after which the caller may simply call again, or turn to PostgreSQL.
    pub async fn read(&mut self, count: usize, block: Duration) -> Result<Vec<Delivery>, QueueError> {
        if self.connection.is_fresh() {
            let pending = self.read_from("0", count, None).await?;
            if !pending.is_empty() {
                return Ok(pending);
            }
        }
        self.read_from(">", count, Some(block)).await
    }

    async fn read_from(
        &mut self,
        start: &str,
        count: usize,
        block: Option<Duration>,
    ) -> Result<Vec<Delivery>, QueueError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.name).arg("COUNT").arg(count);
        if let Some(block) = block {
            command.arg("BLOCK").arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX));
        }
        command.arg("STREAMS").arg(&self.keys.tasks).arg(start);
        let timeout = block.unwrap_or_default() + ANSWER_TIMEOUT;
        let reply: Option<StreamReadReply> = match self.connection.query(&command, timeout).await {
            Err(QueueError::NoGroup) => {
                create_group(&mut self.connection, &self.keys).await?;
                return Ok(Vec::new());
            }
            other => other?,
        };
        let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
        let (good, bad): (Vec<_>, Vec<_>) = entries.map(parse).partition(Result::is_ok);
        let bad: Vec<String> = bad.into_iter().filter_map(Result::err).collect();
        if !bad.is_empty() {
            tracing::warn!(entries = ?bad, "removed entries that hold no task id");
            self.acknowledger.acknowledge(&bad).await?;
        }
        Ok(good.into_iter().filter_map(Result::ok).collect())
    }
}

/// The entry's task id, or the entry's id if it holds none. A pending entry that was deleted has no fields left.
fn parse(entry: StreamId) -> Result<Delivery, String> {
    let task_id = entry.get::<String>("task_id").and_then(|text| Uuid::parse_str(&text).ok());
    match task_id {
        Some(task_id) => Ok(Delivery { entry_id: entry.id, task_id }),
        None => Err(entry.id),
    }
}

/// Creates the stream and its group, from the first entry; not an error if somebody was faster.
pub(crate) async fn create_group(connection: &mut Connection, keys: &Keys) -> Result<(), QueueError> {
    let mut command = redis::cmd("XGROUP");
    command.arg("CREATE").arg(&keys.tasks).arg(GROUP).arg("0").arg("MKSTREAM");
    match connection.query::<String>(&command, ANSWER_TIMEOUT).await {
        Ok(_) => tracing::info!("consumer group created"),
        Err(QueueError::Unavailable(error)) if error.code() == Some("BUSYGROUP") => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Acknowledges deliveries, on a connection of its own.
pub struct Acknowledger {
    connection: Connection,
    keys: Keys,
    name: String,
}

impl Acknowledger {
    /// For the consumer with this name.
    pub fn new(queue: &Queue, name: String) -> Self {
        Self { connection: queue.connection(), keys: queue.keys.clone(), name }
    }

    /// Acknowledges and deletes entries, together. After the commit in PostgreSQL, never before.
    ///
    /// # Errors
    /// [`QueueError`]; the entries stay pending and are removed later, after they were found settled.
    pub async fn acknowledge(&mut self, entry_ids: &[String]) -> Result<(), QueueError> {
        if entry_ids.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("XACK").arg(&self.keys.tasks).arg(GROUP).arg(entry_ids).ignore();
        pipeline.cmd("XDEL").arg(&self.keys.tasks).arg(entry_ids).ignore();
        self.connection.query_pipeline(&pipeline).await
    }

    /// Tells Redis that we are still at work on these entries: their idle time starts again, so nobody takes them over.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn touch(&mut self, entry_ids: &[String]) -> Result<(), QueueError> {
        if entry_ids.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("XCLAIM");
        command.arg(&self.keys.tasks).arg(GROUP).arg(&self.name).arg(0).arg(entry_ids).arg("JUSTID");
        self.connection.query::<Vec<String>>(&command, ANSWER_TIMEOUT).await.map(drop)
    }
}
