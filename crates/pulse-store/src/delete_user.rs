//! Delete of a user: all rows of the user, in small transactions, and the user's own row last.
//!
//! The row is last so that an interrupted deletion can be run again, which continues it. No transaction waits for a locked
//! row, or locks many rows: such rows are left to the next pass. Each pass walks an index from the last row of the chunk
//! before, because deleted rows stay in the index for as long as any long transaction runs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;
use crate::users::User;

/// Maximum number of rows in one transaction.
const CHUNK: i64 = 1000;
/// Number of pages of each partition of `task_history` in one transaction: 1 MiB.
const HISTORY_PAGES: i64 = 128;
/// Pause before the next pass over rows that other transactions had locked.
const PASS_PAUSE: Duration = Duration::from_millis(500);
/// Time of passes that delete nothing, after which the deletion gives up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// Numbers of deleted rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(missing_docs, reason = "these are the names of the tables")]
pub struct DeletedRows {
    pub events: u64,
    pub tasks: u64,
    pub dead_tasks: u64,
    pub task_history: u64,
    pub idempotency_keys: u64,
    pub users: u64,
}

impl DeletedRows {
    /// The names of the tables, and the number of rows deleted from each.
    pub fn tables(&self) -> [(&'static str, u64); 6] {
        let Self { events, tasks, dead_tasks, task_history, idempotency_keys, users } = *self;
        [
            ("events", events),
            ("tasks", tasks),
            ("dead_tasks", dead_tasks),
            ("task_history", task_history),
            ("idempotency_keys", idempotency_keys),
            ("users", users),
        ]
    }

    fn total(&self) -> u64 {
        self.tables().iter().map(|(_, rows)| rows).sum()
    }
}

/// The deletion of one user.
struct Deletion<'a, P> {
    store: &'a Store,
    user_id: i64,
    rows: DeletedRows,
    act: &'a Act,
    progress: P,
}

impl Store {
    /// Deletes a disabled user with all events, tasks and idempotency keys. Calls `progress` after each transaction.
    ///
    /// Returns the numbers of rows; `users` is 0 if rows stayed locked by other transactions for 30 s. Running it again
    /// continues. The transaction that deletes the user leaves a row in the audit log.
    ///
    /// # Errors
    /// [`StoreError`]. Running it again continues.
    pub async fn delete_user(
        &self,
        user: &User,
        act: &Act,
        progress: impl FnMut(&DeletedRows),
    ) -> Result<DeletedRows, StoreError> {
        let mut deletion = Deletion { store: self, user_id: user.id, rows: DeletedRows::default(), act, progress };
        let mut give_up_at = Instant::now() + GIVE_UP_AFTER;
        loop {
            let before = deletion.rows;
            match deletion.pass().await {
                Ok(true) => return Ok(deletion.rows),
                Ok(false) | Err(StoreError::Locked(_)) => {}
                Err(error) => return Err(error),
            }
            if deletion.rows != before {
                give_up_at = Instant::now() + GIVE_UP_AFTER;
            } else if Instant::now() >= give_up_at {
                return Ok(deletion.rows);
            }
            tokio::time::sleep(PASS_PAUSE).await;
        }
    }
}

impl<P: FnMut(&DeletedRows)> Deletion<'_, P> {
    /// Deletes all rows that are not locked; returns whether the user is deleted. The tasks are first: after them no worker
    /// writes to the rows of the user.
    async fn pass(&mut self) -> Result<bool, StoreError> {
        self.delete_tasks().await?;
        self.delete_dead_tasks().await?;
        self.delete_events().await?;
        self.delete_keys().await?;
        let mut transaction = self.patient_transaction().await?;
        if has_rows(&mut transaction, self.user_id).await? {
            return Ok(false);
        }
        transaction.commit().await?;
        self.delete_history().await?;
        self.delete_row().await
    }

    async fn delete_tasks(&mut self) -> Result<(), StoreError> {
        let mut after: Option<(DateTime<Utc>, Uuid)> = None;
        loop {
            let chunk = sqlx::query!(
                "WITH chunk AS (
                     SELECT run_at, id FROM tasks
                     WHERE tasks.user_id = $1 AND ($2::timestamptz IS NULL OR (run_at, id) > ($2, $3::uuid))
                     ORDER BY run_at, id LIMIT $4 FOR UPDATE SKIP LOCKED
                 ), deleted AS (
                     DELETE FROM tasks WHERE id = ANY (ARRAY(SELECT id FROM chunk))
                 )
                 SELECT run_at, id FROM chunk ORDER BY run_at, id",
                self.user_id,
                after.map(|(run_at, _)| run_at),
                after.map(|(_, id)| id),
                CHUNK,
            )
            .fetch_all(&self.store.pool)
            .await?;
            after = chunk.last().map(|row| (row.run_at, row.id));
            self.rows.tasks += chunk.len() as u64;
            if self.is_last(chunk.len()) {
                return Ok(());
            }
        }
    }

    async fn delete_dead_tasks(&mut self) -> Result<(), StoreError> {
        let mut after = Uuid::nil();
        loop {
            let chunk = sqlx::query_scalar!(
                "WITH chunk AS (
                     SELECT id FROM dead_tasks WHERE dead_tasks.user_id = $1 AND id > $2
                     ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
                 ), deleted AS (
                     DELETE FROM dead_tasks WHERE id = ANY (ARRAY(SELECT id FROM chunk))
                 )
                 SELECT id FROM chunk ORDER BY id",
                self.user_id,
                after,
                CHUNK,
            )
            .fetch_all(&self.store.pool)
            .await?;
            after = chunk.last().copied().unwrap_or(after);
            self.rows.dead_tasks += chunk.len() as u64;
            if self.is_last(chunk.len()) {
                return Ok(());
            }
        }
    }

    async fn delete_events(&mut self) -> Result<(), StoreError> {
        let mut after: Option<(DateTime<Utc>, i64)> = None;
        loop {
            let chunk = sqlx::query!(
                "WITH chunk AS (
                     SELECT created_at, id FROM events
                     WHERE user_id = $1 AND ($2::timestamptz IS NULL OR (created_at, id) > ($2, $3::bigint))
                     ORDER BY created_at, id LIMIT $4 FOR UPDATE SKIP LOCKED
                 ), deleted AS (
                     DELETE FROM events USING chunk WHERE events.id = chunk.id AND events.created_at = chunk.created_at
                 )
                 SELECT created_at, id FROM chunk ORDER BY created_at, id",
                self.user_id,
                after.map(|(created_at, _)| created_at),
                after.map(|(_, id)| id),
                CHUNK,
            )
            .fetch_all(&self.store.pool)
            .await?;
            after = chunk.last().map(|row| (row.created_at, row.id));
            self.rows.events += chunk.len() as u64;
            if self.is_last(chunk.len()) {
                return Ok(());
            }
        }
    }

    async fn delete_keys(&mut self) -> Result<(), StoreError> {
        let mut after = (String::new(), String::new());
        loop {
            let mut chunk = sqlx::query!(
                "WITH chunk AS (
                     SELECT route, key FROM idempotency_keys WHERE user_id = $1 AND (route, key) > ($2, $3)
                     ORDER BY route, key LIMIT $4 FOR UPDATE SKIP LOCKED
                 ), deleted AS (
                     DELETE FROM idempotency_keys stored USING chunk
                     WHERE stored.user_id = $1 AND stored.route = chunk.route AND stored.key = chunk.key
                 )
                 SELECT route, key FROM chunk ORDER BY route, key",
                self.user_id,
                after.0,
                after.1,
                CHUNK,
            )
            .fetch_all(&self.store.pool)
            .await?;
            self.rows.idempotency_keys += chunk.len() as u64;
            if self.is_last(chunk.len()) {
                return Ok(());
            }
            after = chunk.pop().map(|row| (row.route, row.key)).unwrap_or_default();
        }
    }

    /// Reads all of `task_history` in physical order, a range of pages of all partitions at a time. An index by user would
    /// make each settlement dearer, for ever; the events of the user do not lead to all rows, because older partitions of
    /// `events` may be gone. After the tasks of the user are deleted, the table gets no more rows of the user.
    async fn delete_history(&mut self) -> Result<(), StoreError> {
        let pages = sqlx::query_scalar!(
            r#"SELECT max(pg_relation_size(relid)) / current_setting('block_size')::bigint AS "pages!"
               FROM pg_partition_tree('task_history') WHERE isleaf"#,
        )
        .fetch_one(&self.store.pool)
        .await?;
        let mut from = 0;
        while from < pages {
            let deleted = sqlx::query!(
                "DELETE FROM task_history
                 WHERE user_id = $1 AND ctid >= format('(%s,0)', $2::bigint)::tid AND ctid < format('(%s,0)', $3::bigint)::tid",
                self.user_id,
                from,
                from + HISTORY_PAGES,
            )
            .execute(&self.store.pool)
            .await?;
            self.rows.task_history += deleted.rows_affected();
            (self.progress)(&self.rows);
            from += HISTORY_PAGES;
        }
        Ok(())
    }

    /// Deletes the row of the user if no other row is left; returns whether it did. A request that was authenticated before
    /// the user was disabled may still post: it waits for this transaction, or this one sees its rows.
    async fn delete_row(&mut self) -> Result<bool, StoreError> {
        let mut transaction = self.patient_transaction().await?;
        sqlx::query_scalar!("SELECT id FROM users WHERE id = $1 FOR UPDATE NOWAIT", self.user_id)
            .fetch_optional(&mut *transaction)
            .await?;
        if has_rows(&mut transaction, self.user_id).await? {
            return Ok(false);
        }
        let deleted = sqlx::query!(
            "WITH deleted AS (DELETE FROM users WHERE id = $1 RETURNING subject)
             INSERT INTO audit_log (act, actor, via, reason, action, target, count)
             SELECT $2, $3, $4, $5, 'user.delete', subject, $6 FROM deleted",
            self.user_id,
            self.act.id,
            self.act.actor,
            self.act.via.as_str(),
            self.act.reason,
            i64::try_from(self.rows.total() + 1).unwrap_or(i64::MAX),
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.rows.users += deleted.rows_affected();
        Ok(true)
    }

    /// A transaction with a long time limit: its statements walk over the index entries of all deleted events, which takes
    /// seconds for millions of them. Only requests of this user could wait for it, and the API refuses these.
    async fn patient_transaction(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, StoreError> {
        let mut transaction = self.store.pool.begin().await?;
        sqlx::query!("SELECT set_config('statement_timeout', '60s', true)").fetch_one(&mut *transaction).await?;
        Ok(transaction)
    }

    /// Reports the progress, and returns whether this chunk is the last one of its table.
    fn is_last(&mut self, chunk: usize) -> bool {
        (self.progress)(&self.rows);
        (chunk as i64) < CHUNK
    }
}

/// Whether any row of the user is left, apart from those in `users` and `task_history`.
async fn has_rows(connection: &mut PgConnection, user_id: i64) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM tasks WHERE tasks.user_id = $1)
                  OR EXISTS (SELECT FROM dead_tasks WHERE dead_tasks.user_id = $1)
                  OR EXISTS (SELECT FROM events WHERE user_id = $1)
                  OR EXISTS (SELECT FROM idempotency_keys WHERE user_id = $1) AS "has_rows!""#,
        user_id,
    )
    .fetch_one(connection)
    .await?)
}
