//! The queue: what PostgreSQL and Redis know of it, and what the differences led to.

use serde::Serialize;
use utoipa::ToSchema;

use crate::connection::Store;
use crate::console::overview::GaugesRow;
use crate::error::StoreError;
use crate::pause::Pause;

/// The queue.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct QueueView {
    /// What the scheduler measured last.
    pub gauges: Option<GaugesRow>,
    /// Number of tasks that PostgreSQL believes to be on the streams, without those that are undelivered there. Far above 0
    /// for long: entries were lost, and are enqueued again. `None` if Redis did not answer.
    pub drift: Option<i64>,
    /// Number of lost tasks that were enqueued again, in the last hour.
    pub requeued_last_hour: i64,
    /// Number of refused settlements in the last hour: a second run of a task had no effect.
    pub refused_last_hour: i64,
    /// The pause of all claims.
    pub pause: Option<Pause>,
}

impl Store {
    /// The queue.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn queue_view(&self) -> Result<QueueView, StoreError> {
        let hour = sqlx::query!(
            r#"SELECT coalesce(sum(requeued), 0)::bigint AS "requeued!", coalesce(sum(refused), 0)::bigint AS "refused!"
               FROM throughput
               WHERE period IN ('live', 'minute') AND event_name = '' AND start > now() - interval '1 hour'"#,
        )
        .fetch_one(&self.pool)
        .await?;
        let gauges = self.gauges().await?;
        Ok(QueueView {
            drift: gauges.as_ref().and_then(drift),
            gauges,
            requeued_last_hour: hour.requeued,
            refused_last_hour: hour.refused,
            pause: self.find_pause().await?,
        })
    }
}

fn drift(gauges: &GaugesRow) -> Option<i64> {
    gauges.undelivered.map(|undelivered| gauges.due - gauges.due_not_enqueued - undelivered)
}
