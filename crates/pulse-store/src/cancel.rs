//! Cancel: ends unsettled and dead tasks by an administrator's decision. And its opposite, the retry of dead tasks.
//!
//! Each transaction leaves a row in the audit log. Tasks are moved in small transactions, which skip rows that another transaction has locked, so that nothing else waits.

use sqlx::PgPool;
use uuid::Uuid;

use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;
use crate::tasks::TaskFilter;

/// Maximum number of tasks in one transaction.
const CHUNK: i64 = 1000;

/// What became of the selected tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MovedTasks {
    /// Tasks that were cancelled or retried.
    pub moved: u64,
    /// Tasks that were not, because another transaction had locked them or had just changed them.
    pub busy: u64,
}

/// The result of one transaction.
struct Chunk {
    selected: i64,
    moved: i64,
    last: Option<Uuid>,
}

/// A statement that deletes the matching rows of a table in the order of their ids, beginning after `$5`, and inserts the
/// `chosen` ones elsewhere. The state is checked again once the row is locked.
macro_rules! move_tasks {
    ($table:literal, $state:literal, $group:literal, $insert:literal, $action:literal, $filter:expr, $act:expr,
     $after:expr, $limit:expr $(,)?) => {
        sqlx::query_as!(
            Chunk,
            "WITH selected AS (
                 SELECT id FROM "
                + $table
                + "
                 WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND "
                + $state
                + " = ANY ($2::text[])
                       AND ($3::bigint IS NULL OR user_id = $3)
                       AND ($4::text IS NULL OR errors -> -1 ->> 'reason' = $4)
                       AND ($7::text IS NULL OR "
                + $group
                + " = $7) AND id > $5
                 ORDER BY id LIMIT $6
             ), locked AS (
                 SELECT id FROM "
                + $table
                + "
                 WHERE id = ANY (ARRAY(SELECT id FROM selected)) AND "
                + $state
                + " = ANY ($2)
                 FOR UPDATE SKIP LOCKED
             ), chosen AS (
                 DELETE FROM "
                + $table
                + " WHERE id = ANY (ARRAY(SELECT id FROM locked)) RETURNING *
             ), moved AS (
                 "
                + $insert
                + "
             ), audited AS (
                 INSERT INTO audit_log (act, actor, via, reason, target, action, count)
                 SELECT $8, $9, $10, $11, $12, '"
                + $action
                + r#"', count(*) FROM chosen HAVING count(*) > 0
             )
             SELECT count(*) AS "selected!", (SELECT count(*) FROM chosen) AS "moved!",
                    (SELECT id FROM selected ORDER BY id DESC LIMIT 1) AS last
             FROM selected"#,
            $filter.ids.as_deref(),
            &$filter.state_names() as &[&str],
            $filter.user_id,
            $filter.reason.as_deref(),
            $after,
            $limit,
            $filter.error_group.as_deref(),
            $act.id,
            $act.actor,
            $act.via.as_str(),
            $act.reason,
            $filter.to_string(),
        )
    };
}

/// A statement that moves the matching rows of a table to `task_history`.
macro_rules! cancel_tasks {
    ($table:literal, $state:literal, $group:literal, $filter:expr, $act:expr, $after:expr, $limit:expr $(,)?) => {
        move_tasks!(
            $table,
            $state,
            $group,
            "INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, started_at,
                                       worker, parent_id, traceparent, request_id)
             SELECT id, kind, user_id, event_ids, 'cancelled', attempts, errors, created_at, started_at,
                    worker, parent_id, traceparent, request_id
             FROM chosen",
            "tasks.cancel",
            $filter,
            $act,
            $after,
            $limit,
        )
    };
}

impl Store {
    /// Cancels at most `limit` tasks, unsettled ones first, each oldest first. A cancelled task moves to `task_history`, and
    /// its events stay unprocessed. If it is running, the settlement of the worker finds no task and changes nothing.
    ///
    /// # Errors
    /// [`StoreError`]. The tasks of earlier transactions are cancelled: running it again continues.
    pub async fn cancel_tasks(&self, filter: &TaskFilter, limit: i64, act: &Act) -> Result<MovedTasks, StoreError> {
        let filter = &self.with_children(filter).await?;
        let mut all = MovedTasks::default();
        if filter.has_unsettled() {
            in_chunks(&self.pool, limit, &mut all, async |pool, after, limit| {
                cancel_tasks!(
                    "tasks",
                    "task_state(lease_until, attempts)",
                    "error_group(errors -> -1 ->> 'error')",
                    filter,
                    act,
                    after,
                    limit,
                )
                .fetch_one(pool)
                .await
            })
            .await?;
        }
        if filter.has_dead() {
            in_chunks(&self.pool, limit, &mut all, async |pool, after, limit| {
                cancel_tasks!("dead_tasks", "'dead'", "error_group", filter, act, after, limit).fetch_one(pool).await
            })
            .await?;
        }
        Ok(all)
    }

    /// Makes at most `limit` dead tasks pending again, oldest first, with all attempts. Id, errors and fencing token are
    /// kept, so that a worker that still runs an old attempt cannot settle the task.
    ///
    /// # Errors
    /// [`StoreError`]. The tasks of earlier transactions are pending: running it again continues.
    pub async fn retry_dead_tasks(&self, filter: &TaskFilter, limit: i64, act: &Act) -> Result<MovedTasks, StoreError> {
        let filter = &self.with_children(filter).await?;
        let mut all = MovedTasks::default();
        in_chunks(&self.pool, limit, &mut all, async |pool, after, limit| {
            move_tasks!(
                "dead_tasks",
                "'dead'",
                "error_group",
                "INSERT INTO tasks (id, kind, user_id, event_ids, bytes, created_at, max_attempts, enqueued_at,
                                    fencing_token, parent_id, errors, traceparent, request_id)
                 SELECT id, kind, user_id, event_ids, bytes, created_at, max_attempts, NULL, fencing_token, parent_id,
                        errors, traceparent, request_id
                 FROM chosen",
                "tasks.retry",
                filter,
                act,
                after,
                limit,
            )
            .fetch_one(pool)
            .await
        })
        .await?;
        Ok(all)
    }
}

/// Moves chunks until `limit` tasks were selected in all, or no more match. A chunk starts after the last id of the one
/// before, so that no chunk walks over the rows that were just deleted.
async fn in_chunks(
    pool: &PgPool,
    limit: i64,
    all: &mut MovedTasks,
    move_chunk: impl AsyncFn(&PgPool, Uuid, i64) -> Result<Chunk, sqlx::Error>,
) -> Result<(), StoreError> {
    let mut after = Uuid::nil();
    loop {
        let size = CHUNK.min(limit.saturating_sub_unsigned(all.moved + all.busy));
        if size <= 0 {
            return Ok(());
        }
        let Chunk { selected, moved, last } = move_chunk(pool, after, size).await?;
        all.moved += moved.unsigned_abs();
        all.busy += (selected - moved).unsigned_abs();
        match last {
            Some(last) if selected == size => after = last,
            _ => return Ok(()),
        }
    }
}
