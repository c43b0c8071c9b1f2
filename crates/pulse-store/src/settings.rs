//! Settings of PostgreSQL on which durability depends, with the fix for each unsafe value.

use crate::connection::Store;
use crate::error::StoreError;

/// A setting as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Name in `pg_settings`, or of the function that was called.
    pub name: &'static str,
    /// Current value.
    pub value: String,
    /// What to do; `None` if the value is safe.
    pub fix: Option<&'static str>,
}

impl Store {
    /// Reads the settings that durability and the statements depend on.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn settings(&self) -> Result<Vec<Setting>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT current_setting('server_version_num')::int AS "version!", current_setting('server_version') AS "version_text!",
                      current_setting('fsync') AS "fsync!", current_setting('full_page_writes') AS "full_page_writes!",
                      current_setting('synchronous_commit') AS "synchronous_commit!",
                      current_setting('server_encoding') AS "encoding!", pg_is_in_recovery() AS "standby!""#,
        )
        .fetch_one(&self.pool)
        .await?;
        let setting = |name, value: String, good: bool, fix| Setting { name, value, fix: (!good).then_some(fix) };
        Ok(vec![
            setting("server_version", row.version_text, row.version >= 140_000, "use PostgreSQL 14 or newer"),
            setting(
                "fsync",
                row.fsync.clone(),
                row.fsync == "on",
                "set fsync = on: without it a crash loses accepted events",
            ),
            setting(
                "full_page_writes",
                row.full_page_writes.clone(),
                row.full_page_writes == "on",
                "set full_page_writes = on: without it a crash can damage accepted events",
            ),
            setting(
                "synchronous_commit",
                row.synchronous_commit.clone(),
                row.synchronous_commit != "off",
                "set synchronous_commit = on for this database: with off, the API answers 202 before the event is durable",
            ),
            setting(
                "server_encoding",
                row.encoding.clone(),
                row.encoding == "UTF8",
                "create the database with ENCODING 'UTF8'",
            ),
            setting(
                "pg_is_in_recovery",
                row.standby.to_string(),
                !row.standby,
                "point the database URL at the primary: a standby accepts no writes",
            ),
        ])
    }
}
