//! Idempotency-Key: one stored answer per user, route and key for 24 hours, committed with the events.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::acceptance::{AcceptError, Acceptance, KeyConflict, NewKey, NewTask};
use crate::connection::Store;
use crate::error::StoreError;

/// A stored answer.
pub(crate) struct StoredKey {
    fingerprint: Vec<u8>,
    task_id: Uuid,
    event_ids: Vec<i64>,
    replay: serde_json::Value,
}

impl StoredKey {
    /// The answer to a request with the same key.
    pub(crate) fn answer(&self, key: &NewKey) -> Result<Acceptance, AcceptError> {
        if self.fingerprint != key.fingerprint {
            return Err(KeyConflict::OtherBody.into());
        }
        Ok(Acceptance::Replayed {
            task_id: self.task_id,
            event_ids: self.event_ids.clone(),
            replay: self.replay.clone(),
        })
    }
}

/// A key to insert with the events of its task.
pub(crate) struct KeyRow<'a> {
    pub(crate) task: &'a NewTask,
    pub(crate) key: &'a NewKey,
    pub(crate) first_event: i32,
    pub(crate) last_event: i32,
}

impl<'a> KeyRow<'a> {
    fn name(&self) -> (i64, &'a str, &'a str) {
        (self.task.user_id, self.key.route, self.key.key.as_str())
    }
}

/// Columns of the keys of a group.
#[derive(Default)]
pub(crate) struct KeyColumns<'a> {
    pub(crate) user_id: Vec<i64>,
    pub(crate) route: Vec<&'a str>,
    pub(crate) key: Vec<&'a str>,
    pub(crate) fingerprint: Vec<&'a [u8]>,
    pub(crate) task_id: Vec<Uuid>,
    pub(crate) replay: Vec<&'a serde_json::Value>,
    pub(crate) first_event: Vec<i32>,
    pub(crate) last_event: Vec<i32>,
}

impl<'a> KeyColumns<'a> {
    /// Sorts the keys, so that two groups cannot deadlock. Of two requests with the same key, the first one is kept.
    pub(crate) fn of(mut rows: Vec<KeyRow<'a>>) -> Self {
        rows.sort_by_key(KeyRow::name);
        rows.dedup_by_key(|row| row.name());
        let mut columns = Self::default();
        for KeyRow { task, key, first_event, last_event } in rows {
            columns.user_id.push(task.user_id);
            columns.route.push(key.route);
            columns.key.push(&key.key);
            columns.fingerprint.push(&key.fingerprint);
            columns.task_id.push(task.id);
            columns.replay.push(&key.replay);
            columns.first_event.push(first_event);
            columns.last_event.push(last_event);
        }
        columns
    }
}

/// Finds the stored answers to these keys, by user, route and key.
pub(crate) async fn find_keys(
    connection: &mut PgConnection,
    keys: &[(i64, &NewKey)],
) -> Result<HashMap<(i64, String, String), StoredKey>, StoreError> {
    let users: Vec<i64> = keys.iter().map(|(user, _)| *user).collect();
    let routes: Vec<&str> = keys.iter().map(|(_, key)| key.route).collect();
    let names: Vec<&str> = keys.iter().map(|(_, key)| key.key.as_str()).collect();
    let rows = sqlx::query!(
        r#"
        SELECT stored.user_id, stored.route, stored.key, fingerprint, task_id, event_ids, replay
        FROM unnest($1::bigint[], $2::text[], $3::text[]) AS asked (user_id, route, key)
        JOIN idempotency_keys stored USING (user_id, route, key)
        "#,
        &users,
        &routes as &[&str],
        &names as &[&str],
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let stored = StoredKey {
                fingerprint: row.fingerprint,
                task_id: row.task_id,
                event_ids: row.event_ids,
                replay: row.replay,
            };
            ((row.user_id, row.route, row.key), stored)
        })
        .collect())
}

impl Store {
    /// Deletes at most `limit` keys that are older than 24 hours, oldest first; returns the number. Skips a key that a
    /// request uses again at this moment.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn expire_idempotency_keys(&self, limit: i64) -> Result<u64, StoreError> {
        let deleted = sqlx::query!(
            "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
                 ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED))",
            limit,
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }

    /// Returns the age of the oldest key, in seconds; 0 without one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn oldest_idempotency_key_age(&self) -> Result<f64, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT coalesce(extract(epoch FROM now() - min(created_at))::float8, 0) AS "age!" FROM idempotency_keys"#,
        )
        .fetch_one(&self.pool)
        .await?)
    }
}
