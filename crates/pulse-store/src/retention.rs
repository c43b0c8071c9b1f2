//! Retention: removes what is older than the administrator wants to keep.

use std::time::Duration;

use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// A table of which old monthly partitions are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonthlyTable {
    /// Events.
    Events,
    /// Settled tasks.
    TaskHistory,
}

impl MonthlyTable {
    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::TaskHistory => "task_history",
        }
    }
}

/// A month that is old enough to be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldMonth {
    /// Name of the partition.
    pub partition: String,
    /// What is in the way: a transaction that has locked the table, an unsettled task of that month, or rows of a held user.
    /// `None`: it was dropped.
    pub blocked_by: Option<String>,
}

impl Store {
    /// Drops the oldest month of a table if it ended longer ago than `keep`, with a row in the audit log; with `needs_copy`,
    /// only if the archive has a verified copy. Waits at most 20 ms for the lock, because all other statements wait
    /// meanwhile. Returns `None` if there is no such month.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn drop_old_month(
        &self,
        table: MonthlyTable,
        keep: Duration,
        needs_copy: bool,
    ) -> Result<Option<OldMonth>, StoreError> {
        let month = sqlx::query!(
            "WITH dropped AS (
                 SELECT * FROM drop_month_partition($1, make_interval(secs => $2), $4)
             ), logged AS (
                 INSERT INTO audit_log (act, actor, via, action, target, count)
                 SELECT $3, 'scheduler', 'process', 'retention.drop', partition_name, row_count
                 FROM dropped WHERE partition_name IS NOT NULL AND blocked_by IS NULL
             )
             SELECT partition_name, blocked_by FROM dropped",
            table.as_str(),
            keep.as_secs_f64(),
            Uuid::now_v7(),
            needs_copy,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(month.partition_name.map(|partition| OldMonth { partition, blocked_by: month.blocked_by }))
    }

    /// Deletes at most `limit` dead letters that died longer ago than `keep`, with a row in the audit log; returns the
    /// number. Those of held users stay, and so do the events of all, unprocessed and with the error.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn delete_old_dead_tasks(&self, keep: Duration, limit: i64) -> Result<i64, StoreError> {
        let deleted = sqlx::query_scalar!(
            r#"WITH old AS (
                   SELECT id FROM dead_tasks WHERE dead_at < now() - make_interval(secs => $1)
                     AND dead_tasks.user_id <> ALL (ARRAY(SELECT id FROM users WHERE held_at IS NOT NULL))
                   ORDER BY dead_at, id LIMIT $2 FOR UPDATE SKIP LOCKED
               ), deleted AS (
                   DELETE FROM dead_tasks USING old WHERE dead_tasks.id = old.id RETURNING dead_tasks.id
               ), counted AS (
                   SELECT count(*) AS tasks FROM deleted
               ), logged AS (
                   INSERT INTO audit_log (act, actor, via, action, target, count)
                   SELECT $3, 'scheduler', 'process', 'retention.delete', 'dead_tasks', tasks FROM counted WHERE tasks > 0
               )
               SELECT tasks AS "tasks!" FROM counted"#,
            keep.as_secs_f64(),
            limit,
            Uuid::now_v7(),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(deleted)
    }
}
