//! The statements of an export. Each returns the JSON of the rows behind the key `after`, and the key of the last one: it
//! walks the index that the erasure walks too.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// Size of the JSON of a chunk, in bytes, with which it ends.
const CHUNK_BYTES: i64 = 4 << 20;

/// Rows as JSON, and the key of the last one.
type Chunk<Key> = Result<(Vec<String>, Option<Key>), StoreError>;

pub(super) struct Reader<'a> {
    pub(super) store: &'a Store,
    pub(super) user_id: i64,
    /// Maximum number of rows.
    pub(super) limit: i64,
}

impl Reader<'_> {
    pub(super) async fn user(&self) -> Result<Vec<String>, StoreError> {
        let rows =
            sqlx::query_scalar!(r#"SELECT row_to_json(users)::text AS "line!" FROM users WHERE id = $1"#, self.user_id);
        Ok(rows.fetch_all(&self.store.pool).await?)
    }

    pub(super) async fn events(&self, after: Option<(DateTime<Utc>, i64)>) -> Chunk<(DateTime<Utc>, i64)> {
        let rows = sqlx::query!(
            r#"WITH exported AS (
                   SELECT * FROM events
                   WHERE events.user_id = $1 AND ($2::timestamptz IS NULL OR (created_at, id) > ($2, $3::bigint))
                   ORDER BY created_at, id LIMIT $4
               ), lines AS MATERIALIZED (
                   SELECT created_at, id, row_to_json(exported)::text AS line FROM exported
               ), summed AS (
                   SELECT *, sum(octet_length(line)) OVER (ORDER BY created_at, id) - octet_length(line) AS before FROM lines
               )
               SELECT created_at AS "created_at!", id AS "id!", line AS "line!" FROM summed WHERE before < $5
               ORDER BY created_at, id"#,
            self.user_id,
            after.map(|(created_at, _)| created_at),
            after.map(|(_, id)| id),
            self.limit,
            CHUNK_BYTES,
        )
        .fetch_all(&self.store.pool)
        .await?;
        let last = rows.last().map(|row| (row.created_at, row.id));
        Ok((rows.into_iter().map(|row| row.line).collect(), last))
    }

    pub(super) async fn tasks(&self, after: Option<(DateTime<Utc>, Uuid)>) -> Chunk<(DateTime<Utc>, Uuid)> {
        let rows = sqlx::query!(
            r#"WITH exported AS (
                   SELECT * FROM tasks
                   WHERE tasks.user_id = $1 AND ($2::timestamptz IS NULL OR (run_at, id) > ($2, $3::uuid))
                   ORDER BY run_at, id LIMIT $4
               ), lines AS MATERIALIZED (
                   SELECT run_at, id, row_to_json(exported)::text AS line FROM exported
               ), summed AS (
                   SELECT *, sum(octet_length(line)) OVER (ORDER BY run_at, id) - octet_length(line) AS before FROM lines
               )
               SELECT run_at AS "run_at!", id AS "id!", line AS "line!" FROM summed WHERE before < $5 ORDER BY run_at, id"#,
            self.user_id,
            after.map(|(run_at, _)| run_at),
            after.map(|(_, id)| id),
            self.limit,
            CHUNK_BYTES,
        )
        .fetch_all(&self.store.pool)
        .await?;
        let last = rows.last().map(|row| (row.run_at, row.id));
        Ok((rows.into_iter().map(|row| row.line).collect(), last))
    }

    pub(super) async fn dead_tasks(&self, after: Option<Uuid>) -> Chunk<Uuid> {
        let rows = sqlx::query!(
            r#"WITH exported AS (
                   SELECT * FROM dead_tasks WHERE dead_tasks.user_id = $1 AND id > $2 ORDER BY id LIMIT $3
               ), lines AS MATERIALIZED (
                   SELECT id, row_to_json(exported)::text AS line FROM exported
               ), summed AS (
                   SELECT *, sum(octet_length(line)) OVER (ORDER BY id) - octet_length(line) AS before FROM lines
               )
               SELECT id AS "id!", line AS "line!" FROM summed WHERE before < $4 ORDER BY id"#,
            self.user_id,
            after.unwrap_or_default(),
            self.limit,
            CHUNK_BYTES,
        )
        .fetch_all(&self.store.pool)
        .await?;
        let last = rows.last().map(|row| row.id);
        Ok((rows.into_iter().map(|row| row.line).collect(), last))
    }

    /// Rows on the pages `from..to` of each partition. Materialized, so that PostgreSQL reads no index in the order of the keys.
    pub(super) async fn history(
        &self,
        from: i64,
        to: i64,
        after: Option<(Uuid, DateTime<Utc>)>,
    ) -> Chunk<(Uuid, DateTime<Utc>)> {
        let rows = sqlx::query!(
            r#"WITH on_pages AS MATERIALIZED (
                   SELECT * FROM task_history
                   WHERE task_history.user_id = $1
                     AND ctid >= format('(%s,0)', $2::bigint)::tid AND ctid < format('(%s,0)', $3::bigint)::tid
               ), exported AS (
                   SELECT * FROM on_pages WHERE $4::uuid IS NULL OR (id, settled_at) > ($4, $5::timestamptz)
                   ORDER BY id, settled_at LIMIT $6
               ), lines AS MATERIALIZED (
                   SELECT id, settled_at, row_to_json(exported)::text AS line FROM exported
               ), summed AS (
                   SELECT *, sum(octet_length(line)) OVER (ORDER BY id, settled_at) - octet_length(line) AS before FROM lines
               )
               SELECT id AS "id!", settled_at AS "settled_at!", line AS "line!" FROM summed WHERE before < $7
               ORDER BY id, settled_at"#,
            self.user_id,
            from,
            to,
            after.map(|(id, _)| id),
            after.map(|(_, settled_at)| settled_at),
            self.limit,
            CHUNK_BYTES,
        )
        .fetch_all(&self.store.pool)
        .await?;
        let last = rows.last().map(|row| (row.id, row.settled_at));
        Ok((rows.into_iter().map(|row| row.line).collect(), last))
    }

    pub(super) async fn keys(&self, after: Option<&(String, String)>) -> Chunk<(String, String)> {
        let rows = sqlx::query!(
            r#"WITH exported AS (
                   SELECT * FROM idempotency_keys WHERE idempotency_keys.user_id = $1 AND (route, key) > ($2, $3)
                   ORDER BY route, key LIMIT $4
               ), lines AS MATERIALIZED (
                   SELECT route, key, row_to_json(exported)::text AS line FROM exported
               ), summed AS (
                   SELECT *, sum(octet_length(line)) OVER (ORDER BY route, key) - octet_length(line) AS before FROM lines
               )
               SELECT route AS "route!", key AS "key!", line AS "line!" FROM summed WHERE before < $5 ORDER BY route, key"#,
            self.user_id,
            after.map_or("", |(route, _)| route),
            after.map_or("", |(_, key)| key),
            self.limit,
            CHUNK_BYTES,
        )
        .fetch_all(&self.store.pool)
        .await?;
        let last = rows.last().map(|row| (row.route.clone(), row.key.clone()));
        Ok((rows.into_iter().map(|row| row.line).collect(), last))
    }
}
