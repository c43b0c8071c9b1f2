//! Settings of PostgreSQL on which durability depends, with the fix for each unsafe value.

use sqlx::PgConnection;

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
        let lost = self.lost_session_settings().await?;
        Ok(vec![
            setting(
                "session settings",
                lost.clone().unwrap_or_else(|| "applied".into()),
                lost.is_none(),
                "a pooler loses them: set pool_mode = session in PgBouncer, or connect to PostgreSQL directly",
            ),
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

    /// Number of connections that PostgreSQL allows users that are not superusers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn max_connections(&self) -> Result<u32, StoreError> {
        let available = sqlx::query_scalar!(
            // PostgreSQL 16 and newer also have reserved_connections.
            r#"SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                      - coalesce(current_setting('reserved_connections', true)::int, 0) AS "available!""#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(u32::try_from(available).unwrap_or(0))
    }

    /// The settings of pooled and dedicated connections that differ from what was set after connecting.
    async fn lost_session_settings(&self) -> Result<Option<String>, StoreError> {
        let mut lost = differing(&mut *self.pool.acquire().await?, self.reads.settings).await?;
        let expected = self.dedicated.settings;
        lost.extend(self.dedicated_connection().run(async |connection| differing(connection, expected).await).await?);
        Ok((!lost.is_empty()).then(|| lost.join(", ")))
    }
}

async fn differing(connection: &mut PgConnection, expected: &[(&str, &str)]) -> Result<Vec<String>, StoreError> {
    let names: Vec<String> = expected.iter().map(|(name, _)| (*name).to_owned()).collect();
    let rows =
        sqlx::query!(r#"SELECT name AS "name!", setting AS "setting!" FROM pg_settings WHERE name = ANY($1)"#, &names)
            .fetch_all(connection)
            .await?;
    let is_expected = |name: &str, value: &str| expected.contains(&(name, value));
    let differing = rows.into_iter().filter(|row| !is_expected(&row.name, &row.setting));
    Ok(differing.map(|row| format!("{} = {}", row.name, row.setting)).collect())
}
