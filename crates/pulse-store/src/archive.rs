//! Copies of old months for the archive, and their way back.
//!
//! A copy reads its month in short statements, while rows may still change. A trigger notes each change, and the copy then
//! begins again: a month is dropped only if its verified copy is that of its last change.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;
use crate::retention::MonthlyTable;

/// A month that is being copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonthCopy {
    /// The table.
    pub table: MonthlyTable,
    /// Name of the partition.
    pub partition: String,
    /// Begin of the month.
    pub from: DateTime<Utc>,
    /// End of the month, which is not part of it.
    pub until: DateTime<Utc>,
    /// The copy; it is another one after a row has changed.
    pub copy_id: Uuid,
}

/// What there is to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextCopy {
    /// No month is old enough, or each has a verified copy.
    None,
    /// A month cannot be copied now.
    Blocked {
        /// Name of the partition.
        partition: String,
        /// What is in the way: a transaction, or an unsettled task of that month.
        by: String,
    },
    /// A month to begin or to continue.
    Month(MonthCopy),
}

/// A written file of a copy.
#[derive(Debug, Clone, PartialEq)]
pub struct ArchivedFile {
    /// Position in the copy, from 0.
    pub number: i32,
    /// Id of its last row.
    pub last_id: String,
    /// Its entry in the manifest.
    pub manifest: Value,
}

impl Store {
    /// The oldest month of a table that ended longer ago than `keep` and has no verified copy.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn begin_month_copy(&self, table: MonthlyTable, keep: Duration) -> Result<NextCopy, StoreError> {
        let next = sqlx::query!(
            "SELECT partition_name, lower_bound, upper_bound, copy, blocked_by
             FROM begin_month_copy($1, make_interval(secs => $2))",
            table.as_str(),
            keep.as_secs_f64(),
        )
        .fetch_one(&self.pool)
        .await?;
        let (Some(partition), Some(from), Some(until)) = (next.partition_name, next.lower_bound, next.upper_bound)
        else {
            return Ok(NextCopy::None);
        };
        Ok(match (next.blocked_by, next.copy) {
            (None, Some(copy_id)) => NextCopy::Month(MonthCopy { table, partition, from, until, copy_id }),
            (by, _) => NextCopy::Blocked { partition, by: by.unwrap_or_default() },
        })
    }

    /// The files of a copy that are written, in their order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn archived_files(&self, copy: &MonthCopy) -> Result<Vec<ArchivedFile>, StoreError> {
        let files = sqlx::query_as!(
            ArchivedFile,
            "SELECT number, last_id, manifest FROM archived_files WHERE copy_id = $1 ORDER BY number",
            copy.copy_id,
        );
        Ok(files.fetch_all(&self.pool).await?)
    }

    /// Notes a written file. Returns `false` if a row of the month has changed, or if another scheduler has written this
    /// file: the copy ends then.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn add_archived_file(&self, copy: &MonthCopy, file: &ArchivedFile) -> Result<bool, StoreError> {
        let added = sqlx::query!(
            "INSERT INTO archived_files (copy_id, number, last_id, manifest)
             SELECT $1, $2, $3, $4 FROM archived_months WHERE copy_id = $1 AND NOT is_changed
             ON CONFLICT DO NOTHING",
            copy.copy_id,
            file.number,
            file.last_id,
            file.manifest,
        )
        .execute(&self.pool)
        .await?;
        Ok(added.rows_affected() == 1)
    }

    /// Notes that the copy is complete and was compared, with a row in the audit log. Returns `false` if a row of the month
    /// has changed since the copy began.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn finish_month_copy(&self, copy: &MonthCopy, rows: u64) -> Result<bool, StoreError> {
        let finished = sqlx::query!(
            "WITH finished AS (
                 UPDATE archived_months SET verified_at = now() WHERE copy_id = $1 AND NOT is_changed RETURNING partition
             )
             INSERT INTO audit_log (act, actor, via, action, target, count)
             SELECT $2, 'scheduler', 'process', 'retention.archive', partition, $3 FROM finished",
            copy.copy_id,
            Uuid::now_v7(),
            i64::try_from(rows).unwrap_or(i64::MAX),
        )
        .execute(&self.pool)
        .await?;
        Ok(finished.rows_affected() == 1)
    }

    /// Lets the next copy of the month begin again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn abandon_month_copy(&self, copy: &MonthCopy) -> Result<(), StoreError> {
        sqlx::query!("UPDATE archived_months SET is_changed = true WHERE copy_id = $1", copy.copy_id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Whether months were copied to an archive, also if they are dropped by now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn has_archive(&self) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM archived_months)
                      OR EXISTS (SELECT FROM audit_log WHERE action = 'retention.archive') AS "found!""#
        );
        Ok(found.fetch_one(&self.pool).await?)
    }

    /// Whether no row of the month has changed since the copy began.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn is_current_copy(&self, copy_id: Uuid) -> Result<bool, StoreError> {
        let found = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM archived_months WHERE copy_id = $1 AND NOT is_changed) AS "found!""#,
            copy_id,
        );
        Ok(found.fetch_one(&self.pool).await?)
    }
}
