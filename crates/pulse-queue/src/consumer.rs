//! Reads deliveries from the stream and acknowledges them.

use std::time::Duration;

use redis::streams::{StreamId, StreamReadReply};
use uuid::Uuid;

use crate::connection::{ANSWER_TIMEOUT, Connection, Queue};
use crate::error::QueueError;
use crate::keys::{GROUP, Keys};

/// A stream entry, as read by a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The entry's id in the stream, for the acknowledgement.
    pub entry_id: String,
    /// The task that the entry names.
    pub task_id: Uuid,
}

/// Reads deliveries, on a separate connection.
pub struct Consumer {
    connection: Connection,
    keys: Keys,
    name: String,
    acknowledger: Acknowledger,
}

impl Consumer {
    /// Creates a consumer. `name` must be unique to this start of the process: a process that reuses a name
    /// hides that the former consumer died.
    pub fn new(queue: &Queue, name: String) -> Self {
        let acknowledger = Acknowledger::new(queue, name.clone());
        Self { connection: queue.connection(), keys: queue.keys.clone(), name, acknowledger }
    }

    /// Waits up to `block` for deliveries, and returns at most `count` of them.
    ///
    /// After a reconnect it first returns this consumer's pending entries, whose delivery may not have arrived. A
    /// missing group is created from the first entry of the stream.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails. The caller may call again, or poll PostgreSQL.
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
        let (valid, invalid): (Vec<_>, Vec<_>) = entries.map(parse).partition(Result::is_ok);
        let invalid: Vec<String> = invalid.into_iter().filter_map(Result::err).collect();
        if !invalid.is_empty() {
            tracing::warn!(entries = ?invalid, "removed stream entries without a task id");
            self.acknowledger.acknowledge(&invalid).await?;
        }
        Ok(valid.into_iter().filter_map(Result::ok).collect())
    }
}

/// The delivery, or the entry's id if the entry has no task id. A pending entry that was deleted has no fields.
fn parse(entry: StreamId) -> Result<Delivery, String> {
    let task_id = entry.get::<String>("task_id").and_then(|text| Uuid::parse_str(&text).ok());
    match task_id {
        Some(task_id) => Ok(Delivery { entry_id: entry.id, task_id }),
        None => Err(entry.id),
    }
}

/// Creates the stream and its group, which reads from the first entry. An existing group is not an error.
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

/// Acknowledges deliveries, on a separate connection.
pub struct Acknowledger {
    connection: Connection,
    keys: Keys,
    name: String,
}

impl Acknowledger {
    /// Creates an acknowledger for the consumer with this name.
    pub fn new(queue: &Queue, name: String) -> Self {
        Self { connection: queue.connection(), keys: queue.keys.clone(), name }
    }

    /// Acknowledges and deletes entries in one transaction. Call it only after the commit in PostgreSQL.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails. The entries stay pending, and the scheduler removes them once they are stale.
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

    /// Resets the idle time of entries whose tasks are still running, so that they are not removed as stale.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails; the next call makes up for it.
    pub async fn touch(&mut self, entry_ids: &[String]) -> Result<(), QueueError> {
        if entry_ids.is_empty() {
            return Ok(());
        }
        let mut command = redis::cmd("XCLAIM");
        command.arg(&self.keys.tasks).arg(GROUP).arg(&self.name).arg(0).arg(entry_ids).arg("JUSTID");
        self.connection.query::<Vec<String>>(&command, ANSWER_TIMEOUT).await.map(drop)
    }
}
