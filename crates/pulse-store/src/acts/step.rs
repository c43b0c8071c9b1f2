//! One transaction of an act.

use uuid::Uuid;

use super::statement::{in_dead_tasks, in_tasks, walking};
use crate::connection::Store;
use crate::error::StoreError;
use crate::tasks::TaskFilter;

/// Number of rows that a step looks at.
const WALK: i64 = 5_000;
/// The same if each row needs a look-up of its event.
const WALK_EVENTS: i64 = 1_000;

/// The result of one transaction.
pub(super) struct Step {
    /// Whether the act continues: it is neither stopped nor ended.
    pub(super) going: bool,
    pub(super) selected: i64,
    pub(super) moved: i64,
    /// Where the next step begins; `None` after the last one.
    pub(super) last: Option<Uuid>,
}

/// Where a step begins, and how many tasks it selects.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) act: Uuid,
    pub(super) after: Uuid,
    pub(super) limit: i64,
}

/// A statement that deletes at most `$10` matching rows of a table and inserts them elsewhere. The state is checked again
/// once a row is locked. The row of the act is locked first, so that nothing moves once it is stopped or ended.
macro_rules! move_tasks {
    (($table:literal, $state:literal, $indexed:literal, $filtered:literal), $insert:literal, $filter:expr, $bounds:expr, $walk:expr) => {
        walking!(
            Step,
            "WITH going AS (
                 SELECT act FROM running_acts WHERE act = $11 AND NOT is_stopping FOR UPDATE
             ), ",
            ($table, $state, $indexed, $filtered),
            [
                ", selected AS (
                     SELECT id FROM walked WHERE matches AND EXISTS (SELECT FROM going) ORDER BY id LIMIT $10
                 ), locked AS (
                     SELECT id FROM ",
                $table,
                " WHERE id = ANY (ARRAY(SELECT id FROM selected)) AND ",
                $state,
                " = ANY ($2) FOR UPDATE SKIP LOCKED
                 ), chosen AS (
                     DELETE FROM ",
                $table,
                " WHERE id = ANY (ARRAY(SELECT id FROM locked)) RETURNING *
                 ), moved AS (",
                $insert,
                r#"), counted AS (
                     UPDATE running_acts
                     SET moved = moved + (SELECT count(*) FROM chosen), seen_at = now(),
                         busy = busy + (SELECT count(*) FROM selected) - (SELECT count(*) FROM chosen)
                     WHERE act = (SELECT act FROM going)
                 )
                 SELECT EXISTS (SELECT FROM going) AS "going!", (SELECT count(*) FROM selected) AS "selected!",
                        (SELECT count(*) FROM chosen) AS "moved!",
                        CASE WHEN (SELECT count(*) FROM selected) >= $10
                             THEN (SELECT id FROM selected ORDER BY id DESC LIMIT 1)
                             WHEN (SELECT count(*) FROM walked) >= $6
                             THEN (SELECT id FROM walked ORDER BY id DESC LIMIT 1)
                        END AS last"#,
            ],
            $filter,
            $bounds.after,
            $walk,
            $bounds.limit,
            $bounds.act,
        )
    };
}

/// A statement that moves the matching rows of a table to `task_history`.
macro_rules! cancel {
    ($table:tt, $filter:expr, $bounds:expr, $walk:expr) => {
        move_tasks!(
            $table,
            "INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, started_at,
                                       worker, parent_id, traceparent, request_id)
             SELECT id, kind, user_id, event_ids, 'cancelled', attempts, errors, created_at, started_at,
                    worker, parent_id, traceparent, request_id
             FROM chosen",
            $filter,
            $bounds,
            $walk
        )
    };
}

/// A statement that moves the matching rows of `dead_tasks` to `tasks`.
macro_rules! retry {
    ($table:tt, $filter:expr, $bounds:expr, $walk:expr) => {
        move_tasks!(
            $table,
            "INSERT INTO tasks (id, kind, user_id, event_ids, bytes, created_at, max_attempts, enqueued_at,
                                fencing_token, parent_id, errors, traceparent, request_id)
             SELECT id, kind, user_id, event_ids, bytes, created_at, max_attempts, NULL, fencing_token, parent_id,
                    errors, traceparent, request_id
             FROM chosen",
            $filter,
            $bounds,
            $walk
        )
    };
}

/// The number of rows that a step looks at.
fn walk(filter: &TaskFilter, is_dead: bool, limit: i64) -> i64 {
    match (&filter.event_name, &filter.reason, &filter.error_prefix) {
        (Some(_), ..) => WALK_EVENTS,
        // Every row that the index finds matches.
        (None, None, None) if is_dead => limit,
        _ => WALK,
    }
}

impl Store {
    /// Makes dead tasks pending again. Id, errors and fencing token are kept, so that a worker that still runs an old
    /// attempt cannot settle the task.
    pub(super) async fn retry_step(&self, filter: &TaskFilter, bounds: Bounds) -> Result<Step, StoreError> {
        let walk = walk(filter, true, bounds.limit);
        Ok(in_dead_tasks!(retry! filter, bounds, walk).fetch_one(&self.pool).await?)
    }

    /// Cancels dead tasks.
    pub(super) async fn discard_step(&self, filter: &TaskFilter, bounds: Bounds) -> Result<Step, StoreError> {
        let walk = walk(filter, true, bounds.limit);
        Ok(in_dead_tasks!(cancel! filter, bounds, walk).fetch_one(&self.pool).await?)
    }

    /// Cancels unsettled tasks. If one is running, the settlement of the worker finds no task and changes nothing.
    pub(super) async fn cancel_step(&self, filter: &TaskFilter, bounds: Bounds) -> Result<Step, StoreError> {
        let walk = walk(filter, false, bounds.limit);
        Ok(in_tasks!(cancel! filter, bounds, walk).fetch_one(&self.pool).await?)
    }
}
