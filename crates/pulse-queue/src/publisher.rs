//! Enqueues tasks: adds their ids to the streams.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::connection::{Connection, Queue};
use crate::error::QueueError;
use crate::keys::Keys;
use crate::scripts;

/// Maximum number of entries that wait to be sent, to bound the memory while Redis is slow.
const MAX_WAITING: usize = 100_000;
/// Maximum number of entries in one round trip, to bound the time for which a script blocks Redis.
const ENTRIES: usize = 500;
/// A task of this size weighs twice as much as an empty one.
const BYTES_PER_WEIGHT: u64 = 16 * 1024;
/// Pause after a failure, during which entries are dropped instead of sent.
const PAUSE: Duration = Duration::from_millis(500);

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The task to process.
    pub task_id: Uuid,
    /// Owner of the task's events. The number of its entries decides about the stream.
    pub user_id: i64,
    /// Size of its events for the limits of a worker, in bytes: a user with few large tasks delays others as much as one
    /// with many small ones.
    pub bytes: u64,
    /// The W3C trace context of the request that posted it.
    pub traceparent: Option<String>,
}

/// Enqueues tasks in the background, best effort: the scheduler's requeue job enqueues those that it drops. Cheap to
/// clone.
#[derive(Clone)]
pub struct Publisher {
    entries: mpsc::Sender<Entry>,
    on_dropped: OnDropped,
}

/// Called with the number of entries that were dropped.
type OnDropped = Arc<dyn Fn(u64) + Send + Sync>;

impl Publisher {
    /// Starts a publisher on the current tokio runtime. Entries beyond those that may wait, and those that Redis does
    /// not accept, are dropped and reported to `on_dropped`. The task sends what waits, and ends when the last clone of
    /// the publisher is dropped.
    pub fn start(queue: &Queue, on_dropped: impl Fn(u64) + Send + Sync + 'static) -> (Self, JoinHandle<()>) {
        let (entries, receiver) = mpsc::channel(MAX_WAITING);
        let on_dropped: OnDropped = Arc::new(on_dropped);
        let sending = tokio::spawn(publish_all(queue.connection(), queue.keys.clone(), receiver, on_dropped.clone()));
        (Self { entries, on_dropped }, sending)
    }

    /// Queues an entry to be sent. Never blocks: drops the entry if the channel is full.
    pub fn enqueue(&self, entry: Entry) {
        if self.entries.try_send(entry).is_err() {
            (self.on_dropped)(1);
        }
    }
}

async fn publish_all(
    mut connection: Connection,
    keys: Keys,
    mut receiver: mpsc::Receiver<Entry>,
    on_dropped: OnDropped,
) {
    let mut entries = Vec::with_capacity(ENTRIES);
    let mut paused_until: Option<Instant> = None;
    while receiver.recv_many(&mut entries, ENTRIES).await > 0 {
        if paused_until.is_none_or(|until| until <= Instant::now()) {
            let was_open = !connection.is_fresh();
            let published = match publish(&mut connection, &keys, &entries).await {
                // The connection broke while it was idle, and Redis may be back. A duplicate entry does no harm.
                Err(QueueError::Unavailable(_)) if was_open && connection.is_fresh() => {
                    publish(&mut connection, &keys, &entries).await
                }
                published => published,
            };
            match published {
                Ok(()) => {
                    if paused_until.take().is_some() {
                        tracing::info!("enqueueing in Redis again");
                    }
                    entries.clear();
                }
                Err(error) => {
                    if paused_until.is_none() {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "cannot enqueue tasks in Redis; the scheduler requeues them"
                        );
                    }
                    paused_until = Some(Instant::now() + PAUSE);
                }
            }
        }
        if !entries.is_empty() {
            on_dropped(entries.len() as u64);
            entries.clear();
        }
    }
}

async fn publish(connection: &mut Connection, keys: &Keys, entries: &[Entry]) -> Result<(), QueueError> {
    let mut script = scripts::enqueue(keys);
    for Entry { task_id, user_id, bytes, traceparent } in entries {
        let mut buffer = Uuid::encode_buffer();
        let task_id: &str = task_id.simple().encode_lower(&mut buffer);
        let weight = 1 + bytes / BYTES_PER_WEIGHT;
        script.invocation.arg(task_id).arg(user_id).arg(weight).arg(traceparent.as_deref().unwrap_or_default());
    }
    connection.run_script(&script).await
}

impl Queue {
    /// Adds `entries` to the streams, and waits for the answer of Redis.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails; some of the entries may have been added.
    pub async fn publish(&self, entries: &[Entry]) -> Result<(), QueueError> {
        let mut connection = self.connection();
        for chunk in entries.chunks(ENTRIES) {
            publish(&mut connection, &self.keys, chunk).await?;
        }
        Ok(())
    }
}
