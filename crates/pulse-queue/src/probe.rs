//! A rehearsal of what all roles do with Redis, for `pulse check`.

use std::time::Duration;

use uuid::Uuid;

use crate::connection::Queue;
use crate::consumer::{Acknowledger, Consumer, EntryId};
use crate::depth::Gauges;
use crate::error::QueueError;
use crate::publisher::Entry;

/// Time to wait for the entry that was just added.
const BLOCK: Duration = Duration::from_millis(100);

impl Queue {
    /// Enqueues a task, delivers and acknowledges it, and publishes gauges, with the code of the roles but with new keys
    /// of the instance, which are deleted afterwards.
    ///
    /// # Errors
    /// The first step that failed, with its error.
    pub async fn probe(&self) -> Result<(), (&'static str, QueueError)> {
        let rehearsal = self.rehearsal(&format!("check-{}", Uuid::new_v4().simple()));
        let result = rehearsal.rehearse().await;
        let purged = rehearsal.purge().await.map(drop).map_err(|error| ("purge", error));
        result.and(purged)
    }

    async fn rehearse(&self) -> Result<(), (&'static str, QueueError)> {
        let step = |name| move |error| (name, error);
        self.ensure_groups().await.map_err(step("create the groups"))?;
        let entry = Entry { task_id: Uuid::nil(), user_id: 0, bytes: 0, traceparent: None };
        self.publish(&[entry]).await.map_err(step("enqueue"))?;
        let mut consumer = Consumer::new(self, "check".into());
        let deliveries = consumer.read(1, BLOCK).await.map_err(step("read"))?;
        let ids: Vec<EntryId> = deliveries.into_iter().map(|delivery| delivery.entry_id).collect();
        let mut acknowledger = Acknowledger::new(self, "check".into());
        acknowledger.touch(&ids).await.map_err(step("extend a delivery"))?;
        acknowledger.acknowledge(&ids).await.map_err(step("acknowledge"))?;
        self.reap(Duration::ZERO, Duration::ZERO).await.map_err(step("remove stale deliveries"))?;
        self.depth().await.map_err(step("read the depth"))?;
        self.delivered().await.map_err(step("read the deep users"))?;
        self.publish_gauges(&NO_GAUGES).await.map_err(step("publish gauges"))?;
        self.gauges_published_at_ms().await.map_err(step("read gauges"))?;
        Ok(())
    }
}

const NO_GAUGES: Gauges = Gauges {
    at_ms: 0,
    unsettled: 0,
    due_not_enqueued: 0,
    next_due_ms: -1,
    oldest_due_ms: -1,
    accepted_total: 0,
    attempts_total: 0,
    retried_total: 0,
    attempt_ms_total: 0,
};
