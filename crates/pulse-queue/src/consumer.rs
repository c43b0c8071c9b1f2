//! Reads deliveries from the streams and acknowledges them.

use std::time::Duration;

use redis::streams::{StreamId, StreamReadReply};
use uuid::Uuid;

use crate::connection::{ANSWER_TIMEOUT, Connection, Queue};
use crate::error::QueueError;
use crate::keys::{GROUP, Keys, STREAMS, Stream};
use crate::scripts;

/// While both streams have more than is read, one of this many deliveries is from the bulk stream.
const BULK_SHARE: usize = 8;
/// Maximum number of entries acknowledged by one script, to bound the time for which it blocks Redis.
const ACKNOWLEDGED: usize = 1000;

/// Identifies an entry, for the acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryId {
    stream: Stream,
    pub(crate) id: String,
}

/// A stream entry, as read by a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The entry.
    pub entry_id: EntryId,
    /// The task that the entry names.
    pub task_id: Uuid,
}

/// Reads deliveries, on a separate connection.
pub struct Consumer {
    connection: Connection,
    keys: Keys,
    name: String,
    acknowledger: Acknowledger,
    /// Fraction of a bulk entry that the reads so far leave, in units of 1 / [`BULK_SHARE`].
    bulk_due: usize,
}

impl Consumer {
    /// Creates a consumer. `name` must be unique to this start of the process: a process that reuses a name
    /// hides that the former consumer died.
    pub fn new(queue: &Queue, name: String) -> Self {
        let acknowledger = Acknowledger::new(queue, name.clone());
        Self { connection: queue.connection(), keys: queue.keys.clone(), name, acknowledger, bulk_due: 0 }
    }

    /// Waits up to `block` for deliveries, and returns at most `count` of them, or of each stream after a wait. Tasks of
    /// deep users, from the bulk stream, get one place of [`BULK_SHARE`], and those that the other tasks leave free.
    ///
    /// After a reconnect it first returns this consumer's pending entries, whose delivery may not have arrived. A
    /// missing group is created from the first entry of the stream.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails. The caller may call again, or poll PostgreSQL.
    pub async fn read(&mut self, count: usize, block: Duration) -> Result<Vec<Delivery>, QueueError> {
        match self.read_new(count, block).await {
            Err(QueueError::NoGroup) => {
                create_groups(&mut self.connection, &self.keys).await?;
                // One stream may have delivered entries before the group of the other was missed.
                self.connection.close();
                Ok(Vec::new())
            }
            other => other,
        }
    }

    async fn read_new(&mut self, count: usize, block: Duration) -> Result<Vec<Delivery>, QueueError> {
        if self.connection.is_fresh() {
            let pending = self.connection.query(&self.read_group("0", count, None), ANSWER_TIMEOUT).await?;
            let pending = self.deliveries(pending).await?;
            if !pending.is_empty() {
                return Ok(pending);
            }
        }
        self.bulk_due += count;
        let share = self.bulk_due / BULK_SHARE;
        self.bulk_due %= BULK_SHARE;
        let reply = self.connection.run_script(&scripts::read(&self.keys, &self.name, count, share)).await?;
        let deliveries = self.deliveries(Some(reply)).await?;
        if !deliveries.is_empty() || block.is_zero() {
            return Ok(deliveries);
        }
        let reply = self.connection.query(&self.read_group(">", count, Some(block)), block + ANSWER_TIMEOUT).await?;
        self.deliveries(reply).await
    }

    /// The command that reads up to `count` entries of each stream.
    fn read_group(&self, start: &str, count: usize, block: Option<Duration>) -> redis::Cmd {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.name).arg("COUNT").arg(count);
        if let Some(block) = block {
            // BLOCK 0 would be no limit.
            command.arg("BLOCK").arg(u64::try_from(block.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        command.arg("STREAMS").arg(&self.keys.tasks).arg(&self.keys.bulk).arg(start).arg(start);
        command
    }

    /// The deliveries of an answer. Entries without a task id are removed.
    async fn deliveries(&mut self, reply: Option<StreamReadReply>) -> Result<Vec<Delivery>, QueueError> {
        let (mut deliveries, mut invalid) = (Vec::new(), Vec::new());
        for key in reply.into_iter().flat_map(|reply| reply.keys) {
            let stream = if key.key == self.keys.bulk { Stream::Bulk } else { Stream::Tasks };
            for entry in key.ids {
                match parse(stream, entry) {
                    Ok(delivery) => deliveries.push(delivery),
                    Err(entry_id) => invalid.push(entry_id),
                }
            }
        }
        if !invalid.is_empty() {
            tracing::warn!(entries = ?invalid, "removed stream entries without a task id");
            self.acknowledger.acknowledge(&invalid).await?;
        }
        Ok(deliveries)
    }
}

/// The delivery, or the entry's id if the entry has no task id. A pending entry that was deleted has no fields.
pub(crate) fn parse(stream: Stream, entry: StreamId) -> Result<Delivery, EntryId> {
    let task_id = entry.get::<String>("task_id").and_then(|text| Uuid::parse_str(&text).ok());
    let entry_id = EntryId { stream, id: entry.id };
    match task_id {
        Some(task_id) => Ok(Delivery { entry_id, task_id }),
        None => Err(entry_id),
    }
}

/// Creates both streams and their groups, which read from the first entry. An existing group is not an error.
pub(crate) async fn create_groups(connection: &mut Connection, keys: &Keys) -> Result<(), QueueError> {
    for stream in STREAMS {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(keys.stream(stream)).arg(GROUP).arg("0").arg("MKSTREAM");
        match connection.query::<String>(&command, ANSWER_TIMEOUT).await {
            Ok(_) => tracing::info!(?stream, "consumer group created"),
            Err(QueueError::Unavailable(error)) if error.code() == Some("BUSYGROUP") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The ids of the entries of one stream.
fn ids_of(entry_ids: &[EntryId], stream: Stream) -> Vec<&str> {
    entry_ids.iter().filter(|entry| entry.stream == stream).map(|entry| entry.id.as_str()).collect()
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

    /// Acknowledges and deletes entries. Call it only after the commit in PostgreSQL.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails. The entries stay pending, and the scheduler removes them once they are stale.
    pub async fn acknowledge(&mut self, entry_ids: &[EntryId]) -> Result<(), QueueError> {
        for chunk in entry_ids.chunks(ACKNOWLEDGED) {
            let (tasks, bulk) = (ids_of(chunk, Stream::Tasks), ids_of(chunk, Stream::Bulk));
            self.connection.run_script::<()>(&scripts::remove(&self.keys, &tasks, &bulk)).await?;
        }
        Ok(())
    }

    /// Resets the idle time of entries whose tasks are still running, so that they are not removed as stale.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails; the next call makes up for it.
    pub async fn touch(&mut self, entry_ids: &[EntryId]) -> Result<(), QueueError> {
        for stream in STREAMS {
            let ids = ids_of(entry_ids, stream);
            if !ids.is_empty() {
                let mut command = redis::cmd("XCLAIM");
                command.arg(self.keys.stream(stream)).arg(GROUP).arg(&self.name).arg(0).arg(ids).arg("JUSTID");
                self.connection.query::<Vec<String>>(&command, ANSWER_TIMEOUT).await?;
            }
        }
        Ok(())
    }
}
