//! Idempotency-Key: one stored answer per user, route and key for 24 hours, committed with the events.

use std::collections::HashMap;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::accept::insert;
use crate::acceptance::{AcceptError, Acceptance, KeyConflict, NewKey, NewTask};
use crate::connection::Store;
use crate::error::StoreError;

/// A stored answer.
struct Stored {
    fingerprint: Vec<u8>,
    task_id: Uuid,
    event_ids: Vec<i64>,
    replay: serde_json::Value,
}

impl Stored {
    fn answer(&self, key: &NewKey) -> Result<Acceptance, AcceptError> {
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

type KeyName<'a> = (i64, &'a str, &'a str);

fn name(task: &NewTask) -> Option<KeyName<'_>> {
    task.key.as_ref().map(|key| (task.user_id, key.route, key.key.as_str()))
}

/// Accepts the tasks whose key is new, or that have none, and replays the others, in one transaction.
///
/// Of two requests with the same key in one group, one is inserted and one is replayed. If another transaction inserts the
/// same key, this one waits for its end, at most `lock_timeout`.
pub(crate) async fn commit_with_keys(
    connection: &mut PgConnection,
    tasks: &[NewTask],
    writer: &str,
) -> Result<Vec<Result<Acceptance, AcceptError>>, StoreError> {
    let mut transaction = connection.begin().await?;
    let won = reserve(&mut transaction, tasks).await?;
    let fresh: Vec<&NewTask> = tasks.iter().filter(|task| task.key.is_none() || won.contains(&task.id)).collect();
    let mut inserted: HashMap<Uuid, Vec<i64>> = HashMap::new();
    if !fresh.is_empty() {
        let ids = insert(&mut transaction, &fresh, writer).await?;
        inserted.extend(fresh.iter().map(|task| task.id).zip(ids));
        store_event_ids(&mut transaction, tasks, &won, &inserted).await?;
    }
    let stored = find(&mut transaction, tasks).await?;
    transaction.commit().await?;

    Ok(tasks
        .iter()
        .map(|task| match (inserted.remove(&task.id), &task.key) {
            (Some(event_ids), _) => Ok(Acceptance::Accepted { event_ids }),
            (None, Some(key)) => {
                let known = name(task).and_then(|name| stored.get(&(name.0, name.1.to_owned(), name.2.to_owned())));
                known.map_or(Err(KeyConflict::InProgress.into()), |stored| stored.answer(key))
            }
            (None, None) => unreachable!("a task without a key is always inserted"),
        })
        .collect())
}

/// Inserts the keys that were not used within 24 hours; returns the tasks whose key was inserted.
async fn reserve(connection: &mut PgConnection, tasks: &[NewTask]) -> Result<Vec<Uuid>, StoreError> {
    let mut keyed: Vec<(KeyName<'_>, &NewTask, &NewKey)> =
        tasks.iter().filter_map(|task| Some((name(task)?, task, task.key.as_ref()?))).collect();
    // Sorted, so that two groups cannot deadlock. Of two requests with the same key, the first one is kept.
    keyed.sort_by_key(|(name, ..)| *name);
    keyed.dedup_by_key(|(name, ..)| *name);
    let users: Vec<i64> = keyed.iter().map(|(_, task, _)| task.user_id).collect();
    let routes: Vec<&str> = keyed.iter().map(|(_, _, key)| key.route).collect();
    let keys: Vec<&str> = keyed.iter().map(|(_, _, key)| key.key.as_str()).collect();
    let fingerprints: Vec<&[u8]> = keyed.iter().map(|(_, _, key)| key.fingerprint.as_slice()).collect();
    let task_ids: Vec<Uuid> = keyed.iter().map(|(_, task, _)| task.id).collect();
    let replays: Vec<&serde_json::Value> = keyed.iter().map(|(_, _, key)| &key.replay).collect();
    let won = sqlx::query_scalar!(
        r#"
        INSERT INTO idempotency_keys AS stored (user_id, route, key, fingerprint, task_id, replay)
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::uuid[], $6::jsonb[])
        ON CONFLICT (user_id, route, key) DO UPDATE
        SET fingerprint = excluded.fingerprint, task_id = excluded.task_id, replay = excluded.replay,
            event_ids = NULL, created_at = now()
        WHERE stored.created_at < now() - interval '24 hours'
        RETURNING task_id
        "#,
        &users,
        &routes as &[&str],
        &keys as &[&str],
        &fingerprints as &[&[u8]],
        &task_ids,
        &replays as &[&serde_json::Value],
    )
    .fetch_all(connection)
    .await?;
    Ok(won)
}

/// Stores the event ids with the inserted keys.
async fn store_event_ids(
    connection: &mut PgConnection,
    tasks: &[NewTask],
    won: &[Uuid],
    inserted: &HashMap<Uuid, Vec<i64>>,
) -> Result<(), StoreError> {
    for task in tasks.iter().filter(|task| won.contains(&task.id)) {
        let Some((user_id, route, key)) = name(task) else { continue };
        sqlx::query!(
            "UPDATE idempotency_keys SET event_ids = $4 WHERE user_id = $1 AND route = $2 AND key = $3",
            user_id,
            route,
            key,
            inserted.get(&task.id).map(Vec::as_slice),
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn find(
    connection: &mut PgConnection,
    tasks: &[NewTask],
) -> Result<HashMap<(i64, String, String), Stored>, StoreError> {
    let names: Vec<KeyName<'_>> = tasks.iter().filter_map(name).collect();
    let users: Vec<i64> = names.iter().map(|(user, ..)| *user).collect();
    let routes: Vec<&str> = names.iter().map(|(_, route, _)| *route).collect();
    let keys: Vec<&str> = names.iter().map(|(_, _, key)| *key).collect();
    let rows = sqlx::query!(
        r#"
        SELECT stored.user_id, stored.route, stored.key, fingerprint, task_id, event_ids AS "event_ids!", replay
        FROM unnest($1::bigint[], $2::text[], $3::text[]) AS asked (user_id, route, key)
        JOIN idempotency_keys stored USING (user_id, route, key)
        "#,
        &users,
        &routes as &[&str],
        &keys as &[&str],
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let stored = Stored {
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
    /// Deletes at most `limit` keys that are older than 24 hours; returns the number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn expire_idempotency_keys(&self, limit: i64) -> Result<u64, StoreError> {
        let deleted = sqlx::query!(
            "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
                 ORDER BY created_at LIMIT $1))",
            limit,
        )
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}
