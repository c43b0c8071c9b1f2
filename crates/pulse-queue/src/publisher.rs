//! Enqueue: tell Redis that a task is owed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::connection::{Connection, Queue};
use crate::error::QueueError;
use crate::keys::Keys;

/// Entries of one round trip.
const PIPELINE: usize = 500;
/// How long Redis is left alone after a failure, while entries are dropped.
const PAUSE: Duration = Duration::from_millis(500);

/// What an entry of the stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The task that is owed.
    pub task_id: Uuid,
    /// The W3C trace context of the request that posted it.
    pub traceparent: Option<String>,
}

/// Tells Redis in the background, best effort: what it drops, the sweep finds. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    entries: mpsc::Sender<Entry>,
    dropped: Dropped,
}

/// Hears how many entries were dropped.
type Dropped = Arc<dyn Fn(u64) + Send + Sync>;

impl Publisher {
    /// Starts on the current tokio runtime; at most `capacity` entries wait. `dropped` hears of those that are left to
    /// the sweep.
    pub fn start(queue: &Queue, capacity: usize, dropped: impl Fn(u64) + Send + Sync + 'static) -> Self {
        let (entries, receiver) = mpsc::channel(capacity);
        let dropped: Dropped = Arc::new(dropped);
        tokio::spawn(publish_all(queue.connection(), queue.keys.clone(), receiver, dropped.clone()));
        Self { entries, dropped }
    }

    /// Never waits.
    pub fn enqueue(&self, entry: Entry) {
        if self.entries.try_send(entry).is_err() {
            (self.dropped)(1);
        }
    }
}

async fn publish_all(mut connection: Connection, keys: Keys, mut receiver: mpsc::Receiver<Entry>, dropped: Dropped) {
    let mut entries = Vec::with_capacity(PIPELINE);
    let mut paused_until: Option<Instant> = None;
    while receiver.recv_many(&mut entries, PIPELINE).await > 0 {
        if paused_until.is_none_or(|until| until <= Instant::now()) {
            let was_open = !connection.is_fresh();
            let published = match publish(&mut connection, &keys, &entries).await {
                // It broke while nobody used it, and Redis may long be back. An entry that comes twice does no harm.
                Err(QueueError::Unavailable(_)) if was_open && connection.is_fresh() => {
                    publish(&mut connection, &keys, &entries).await
                }
                published => published,
            };
            match published {
                Ok(()) => {
                    if paused_until.take().is_some() {
                        tracing::info!("enqueueing through Redis again");
                    }
                    entries.clear();
                }
                Err(error) => {
                    if paused_until.is_none() {
                        tracing::warn!(error = &error as &dyn std::error::Error, "cannot enqueue: the sweep will");
                    }
                    paused_until = Some(Instant::now() + PAUSE);
                }
            }
        }
        if !entries.is_empty() {
            dropped(entries.len() as u64);
            entries.clear();
        }
    }
}

async fn publish(connection: &mut Connection, keys: &Keys, entries: &[Entry]) -> Result<(), QueueError> {
    let mut pipeline = redis::pipe();
    for Entry { task_id, traceparent } in entries {
        let mut buffer = Uuid::encode_buffer();
        let task_id: &str = task_id.simple().encode_lower(&mut buffer);
        let command = pipeline.cmd("XADD").arg(&keys.tasks).arg("*").arg("task_id").arg(task_id);
        if let Some(traceparent) = traceparent {
            command.arg("traceparent").arg(traceparent);
        }
        command.ignore();
    }
    connection.query_pipeline::<()>(&pipeline).await
}

impl Queue {
    /// Tells Redis of `entries`, and waits for its word.
    ///
    /// # Errors
    /// [`QueueError`]; some of the entries may have been added all the same.
    pub async fn publish(&self, entries: &[Entry]) -> Result<(), QueueError> {
        let mut connection = self.connection();
        for some in entries.chunks(PIPELINE) {
            publish(&mut connection, &self.keys, some).await?;
        }
        Ok(())
    }
}
