//! The transactions of an erasure. Each pass walks an index from the last row of the chunk before, because deleted rows stay
//! in the index for as long as any long transaction runs.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::error::EraseError;
use super::left::{has_rows, patient_transaction};
use crate::connection::Store;
use crate::user_rows::UserRows;

/// Maximum number of rows in one transaction.
const CHUNK: i64 = 1000;
/// Number of pages of each partition of `task_history` in one transaction: 1 MiB.
const HISTORY_PAGES: i64 = 128;

/// The erasure of one user.
pub(super) struct Erasure<'a, P> {
    pub(super) store: &'a Store,
    pub(super) user_id: i64,
    pub(super) rows: &'a mut UserRows,
    pub(super) progress: P,
}

impl<P: FnMut(&UserRows)> Erasure<'_, P> {
    /// Deletes all rows that are not locked; returns whether none is left. The tasks are first: after them no worker writes
    /// to the rows of the user.
    pub(super) async fn pass(&mut self) -> Result<bool, EraseError> {
        self.delete_tasks().await?;
        self.delete_dead_tasks().await?;
        self.delete_events().await?;
        self.delete_keys().await?;
        if has_rows(&mut *patient_transaction(self.store).await?, self.user_id).await? {
            return Ok(false);
        }
        self.delete_history().await?;
        Ok(true)
    }

    /// Begins the transaction of one chunk. The lock lets accepts pass, and lets a hold wait for the end of the transaction.
    async fn chunk(&self) -> Result<Transaction<'static, Postgres>, EraseError> {
        let mut transaction = self.store.pool.begin().await?;
        let held_at = sqlx::query_scalar!("SELECT held_at FROM users WHERE id = $1 FOR SHARE NOWAIT", self.user_id)
            .fetch_optional(&mut *transaction)
            .await?;
        match held_at.flatten() {
            Some(since) => Err(EraseError::OnHold(since)),
            None => Ok(transaction),
        }
    }

    async fn delete_tasks(&mut self) -> Result<(), EraseError> {
        let mut after: Option<(DateTime<Utc>, Uuid)> = None;
        loop {
            let mut transaction = self.chunk().await?;
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
            .fetch_all(&mut *transaction)
            .await?;
            transaction.commit().await?;
            after = chunk.last().map(|row| (row.run_at, row.id));
            self.rows.tasks += chunk.len() as u64;
            if self.is_last(chunk.len()) {
                return Ok(());
            }
        }
    }

    async fn delete_dead_tasks(&mut self) -> Result<(), EraseError> {
        let mut after = Uuid::nil();
        loop {
            let mut transaction = self.chunk().await?;
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
            .fetch_all(&mut *transaction)
            .await?;
            transaction.commit().await?;
            after = chunk.last().copied().unwrap_or(after);
            self.rows.dead_tasks += chunk.len() as u64;
            if self.is_last(chunk.len()) {
                return Ok(());
            }
        }
    }

    async fn delete_events(&mut self) -> Result<(), EraseError> {
        let mut after: Option<(DateTime<Utc>, i64)> = None;
        loop {
            let mut transaction = self.chunk().await?;
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
            .fetch_all(&mut *transaction)
            .await?;
            transaction.commit().await?;
            after = chunk.last().map(|row| (row.created_at, row.id));
            self.rows.events += chunk.len() as u64;
            if self.is_last(chunk.len()) {
                return Ok(());
            }
        }
    }

    async fn delete_keys(&mut self) -> Result<(), EraseError> {
        let mut after = (String::new(), String::new());
        loop {
            let mut transaction = self.chunk().await?;
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
            .fetch_all(&mut *transaction)
            .await?;
            transaction.commit().await?;
            self.rows.idempotency_keys += chunk.len() as u64;
            if self.is_last(chunk.len()) {
                return Ok(());
            }
            after = chunk.pop().map(|row| (row.route, row.key)).unwrap_or_default();
        }
    }

    /// After the tasks of the user are deleted, the table gets no more rows of the user.
    async fn delete_history(&mut self) -> Result<(), EraseError> {
        let pages = self.store.history_pages().await?;
        let mut from = 0;
        while from < pages {
            let mut transaction = self.chunk().await?;
            let deleted = sqlx::query!(
                "DELETE FROM task_history
                 WHERE user_id = $1 AND ctid >= format('(%s,0)', $2::bigint)::tid AND ctid < format('(%s,0)', $3::bigint)::tid",
                self.user_id,
                from,
                from + HISTORY_PAGES,
            )
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            self.rows.task_history += deleted.rows_affected();
            (self.progress)(self.rows);
            from += HISTORY_PAGES;
        }
        Ok(())
    }

    /// Reports the progress, and returns whether this chunk is the last one of its table.
    fn is_last(&mut self, chunk: usize) -> bool {
        (self.progress)(self.rows);
        (chunk as i64) < CHUNK
    }
}
