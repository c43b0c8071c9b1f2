//! Standbys, and whether a commit waits for one of them.

use crate::connection::Store;
use crate::error::StoreError;

/// Replication of the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replication {
    /// Number of standbys and other receivers of the write-ahead log that are connected.
    pub standbys: i64,
    /// `synchronous_standby_names`; `None` if no commit waits for a standby.
    pub synchronous: Option<String>,
}

impl Store {
    /// Reads how the database is replicated.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn replication(&self) -> Result<Replication, StoreError> {
        let row = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM pg_stat_replication) AS "standbys!",
                      current_setting('synchronous_standby_names') AS "names!",
                      current_setting('synchronous_commit') AS "commit!""#
        )
        .fetch_one(&self.pool)
        .await?;
        let waits = !row.names.is_empty() && !matches!(row.commit.as_str(), "off" | "local");
        Ok(Replication { standbys: row.standbys, synchronous: waits.then_some(row.names) })
    }
}
