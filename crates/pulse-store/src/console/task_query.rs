//! The rows of tasks in a page, from each of the three tables.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::connection::Store;
use crate::console::page_filter::{PageFilter, Table};
use crate::error::StoreError;

/// A task in a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaskRow {
    /// Id of the task.
    pub id: Uuid,
    /// `process_event` or `process_events_batch`.
    pub kind: String,
    /// Its state.
    pub state: String,
    /// The `sub` of its user; `None` if the user was deleted.
    pub user: Option<String>,
    /// Name of its first event; `None` if that was deleted.
    pub event_name: Option<String>,
    /// Number of events.
    pub events: i32,
    /// Number of ended attempts.
    pub attempts: i32,
    /// Maximum number of attempts; `None` once settled.
    pub max_attempts: Option<i32>,
    /// Time of acceptance.
    pub created_at: DateTime<Utc>,
    /// Earliest time of the next attempt; `None` while it runs and once it is settled or dead.
    pub next_run_at: Option<DateTime<Utc>>,
    /// Time of settlement; for a dead task, the time at which it was dead-lettered.
    pub settled_at: Option<DateTime<Utc>>,
    /// Worker of the latest attempt.
    pub worker: Option<String>,
    /// Reason of the last failed attempt.
    pub reason: Option<String>,
    /// Error of the last failed attempt.
    pub error: Option<String>,
}

/// Rows of a table with the states `$states`, by id, from `$8` to below `$1`, among the first `$7`. PostgreSQL stops as
/// soon as it has `$6`. `$indexed` are the conditions for which there is an index, and `$filtered` those without one.
macro_rules! rows_of {
    ($table:literal, $state:literal, $max_attempts:literal, $next_run_at:literal, $settled_at:literal, $reason:literal,
     $indexed:literal, $filtered:literal, $filter:expr, $states:expr, $below:expr, $limit:expr) => {
        sqlx::query_as!(
            TaskRow,
            "SELECT id, kind, "
                + $state
                + r#" AS "state!", (SELECT subject FROM users WHERE users.id = walked.user_id) AS user,
                  (SELECT event_name FROM events WHERE events.id = event_ids[1] AND events.created_at = walked.created_at)
                  AS event_name, cardinality(event_ids) AS "events!", attempts, "#
                + $max_attempts
                + r#" AS "max_attempts?", created_at, "#
                + $next_run_at
                + r#" AS "next_run_at?", "#
                + $settled_at
                + r#" AS "settled_at?", worker, errors -> -1 ->> 'reason' AS reason, errors -> -1 ->> 'error' AS error
             FROM (SELECT * FROM "#
                + $table
                + " WHERE id < $1 AND id >= $8 AND "
                + $indexed
                + " ORDER BY id DESC LIMIT $7) AS walked
             WHERE "
                + $filtered
                + " AND "
                + $state
                + " = ANY ($2::text[])
                   AND ($4::text IS NULL OR "
                + $reason
                + " = $4)
                   AND ($5::text IS NULL OR starts_with(errors -> -1 ->> 'error', $5))
                   AND ($10::text IS NULL OR $10 = (
                        SELECT event_name FROM events
                        WHERE events.id = event_ids[1] AND events.created_at = walked.created_at))
             ORDER BY id DESC LIMIT $6",
            $below,
            $states as &[&str],
            $filter.user_id,
            $filter.reason.as_deref(),
            $filter.error_prefix.as_deref(),
            $limit,
            $filter.walk(),
            $filter.lowest_id(),
            $filter.error_group.as_deref(),
            $filter.event_name.as_deref(),
        )
    };
}

impl Store {
    /// The first `limit` matching rows of a table with ids below `below`, latest first.
    pub(super) async fn task_rows(
        &self,
        table: Table,
        filter: &PageFilter,
        states: &[&str],
        below: Uuid,
        limit: i64,
    ) -> Result<Vec<TaskRow>, StoreError> {
        let rows = match table {
            Table::Unsettled => {
                rows_of!(
                    "tasks",
                    "task_state(lease_until, attempts)",
                    "max_attempts",
                    "CASE WHEN lease_until IS NULL THEN run_at END",
                    "NULL::timestamptz",
                    "errors -> -1 ->> 'reason'",
                    "($3::bigint IS NULL OR user_id = $3)",
                    "($9::text IS NULL OR error_group(errors -> -1 ->> 'error') = $9)",
                    filter,
                    states,
                    below,
                    limit
                )
                .fetch_all(&self.pool)
                .await?
            }
            Table::Dead => {
                rows_of!(
                    "dead_tasks",
                    "'dead'",
                    "max_attempts",
                    "NULL::timestamptz",
                    "dead_at",
                    "reason",
                    "($3::bigint IS NULL OR user_id = $3) AND ($9::text IS NULL OR error_group = $9)",
                    "true",
                    filter,
                    states,
                    below,
                    limit
                )
                .fetch_all(&self.pool)
                .await?
            }
            Table::Settled => {
                rows_of!(
                    "task_history",
                    "outcome",
                    "NULL::int",
                    "NULL::timestamptz",
                    "settled_at",
                    "errors -> -1 ->> 'reason'",
                    "true",
                    "($3::bigint IS NULL OR user_id = $3)
                     AND ($9::text IS NULL OR error_group(errors -> -1 ->> 'error') = $9)",
                    filter,
                    states,
                    below,
                    limit
                )
                .fetch_all(&self.pool)
                .await?
            }
        };
        Ok(rows)
    }

    /// The id of the last row that a search in a table looks at; `None` if it looks at all rows. It has the conditions for
    /// which there is an index.
    pub(super) async fn walk_end(
        &self,
        table: Table,
        filter: &PageFilter,
        below: Uuid,
    ) -> Result<Option<Uuid>, StoreError> {
        let (low, skip, user) = (filter.lowest_id(), filter.walk() - 1, filter.user_id);
        let end = match table {
            Table::Unsettled => {
                sqlx::query_scalar!(
                    "SELECT id FROM tasks WHERE id < $1 AND id >= $2 AND ($4::bigint IS NULL OR user_id = $4)
                     ORDER BY id DESC OFFSET $3 LIMIT 1",
                    below,
                    low,
                    skip,
                    user,
                )
                .fetch_optional(&self.pool)
                .await?
            }
            Table::Dead => {
                sqlx::query_scalar!(
                    "SELECT id FROM dead_tasks WHERE id < $1 AND id >= $2 AND ($4::bigint IS NULL OR user_id = $4)
                            AND ($5::text IS NULL OR error_group = $5)
                     ORDER BY id DESC OFFSET $3 LIMIT 1",
                    below,
                    low,
                    skip,
                    user,
                    filter.error_group.as_deref(),
                )
                .fetch_optional(&self.pool)
                .await?
            }
            Table::Settled => {
                sqlx::query_scalar!(
                    "SELECT id FROM task_history WHERE id < $1 AND id >= $2 ORDER BY id DESC OFFSET $3 LIMIT 1",
                    below,
                    low,
                    skip,
                )
                .fetch_optional(&self.pool)
                .await?
            }
        };
        Ok(end)
    }
}
