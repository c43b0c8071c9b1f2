//! The oldest snapshot that something holds. As long as it is held, PostgreSQL keeps the rows of all tasks that were settled
//! since, and statements on `tasks` become slower.

use crate::connection::Store;
use crate::error::StoreError;

/// A held snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldestSnapshot {
    /// Who holds it: a session, a replication slot, or a prepared transaction.
    pub holder: String,
    /// Number of transactions that began since.
    pub transactions: i64,
}

impl Store {
    /// Returns the oldest snapshot of the database, apart from that of this statement; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn oldest_snapshot(&self) -> Result<Option<OldestSnapshot>, StoreError> {
        // The start of a transaction of another role is hidden, unless this one has pg_read_all_stats.
        let oldest = sqlx::query_as!(
            OldestSnapshot,
            r#"SELECT holder AS "holder!", transactions::bigint AS "transactions!"
               FROM (
                   SELECT concat(coalesce(nullif(application_name, ''), backend_type), ' (pid ', pid, ', user ', usename,
                                 ', since ' || to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'), ')') AS holder,
                          age(backend_xmin) AS transactions
                   FROM pg_stat_activity
                   WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
                         AND (datname = current_database() OR datname IS NULL)
                   UNION ALL
                   SELECT 'replication slot ' || slot_name, age(xmin) FROM pg_replication_slots WHERE xmin IS NOT NULL
                   UNION ALL
                   SELECT 'prepared transaction ' || gid, age(transaction) FROM pg_prepared_xacts
                   WHERE database = current_database()
               ) AS held
               ORDER BY transactions DESC LIMIT 1"#,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(oldest)
    }
}
