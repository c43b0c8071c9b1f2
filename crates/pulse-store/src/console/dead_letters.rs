//! Dead letters, grouped by their error.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

/// Maximum number of dead letters that are grouped, the latest ones.
const WALK: i64 = 100_000;

/// The order of groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadOrder {
    /// The largest group first.
    Count,
    /// The group with the latest dead letter first.
    Newest,
}

/// The dead letters whose last attempts failed with the same error, apart from quoted texts, ids and numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeadGroup {
    /// Reason of the last failed attempt.
    pub reason: String,
    /// The common part of the error, and the filter for this group.
    pub error_group: String,
    /// Number of dead letters.
    pub count: i64,
    /// Time of the first one.
    pub first_at: DateTime<Utc>,
    /// Time of the last one.
    pub last_at: DateTime<Utc>,
    /// The latest dead letter.
    pub example: Uuid,
    /// Its error.
    pub example_error: Option<String>,
    /// The `sub` of its user; `None` if the user was deleted.
    pub example_user: Option<String>,
}

impl Store {
    /// At most `limit` groups of the latest 100,000 dead letters. Reads only an index.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn dead_groups(&self, order: DeadOrder, limit: i64) -> Result<Vec<DeadGroup>, StoreError> {
        let groups = sqlx::query_as!(
            DeadGroup,
            r#"WITH latest AS (
                   SELECT reason, error_group, dead_at FROM dead_tasks ORDER BY dead_at DESC, id DESC LIMIT $1
               ), groups AS (
                   SELECT reason, error_group, count(*) AS count, min(dead_at) AS first_at, max(dead_at) AS last_at
                   FROM latest GROUP BY reason, error_group
                   ORDER BY CASE WHEN $2 THEN extract(epoch FROM max(dead_at)) ELSE count(*) END DESC, error_group
                   LIMIT $3
               )
               SELECT groups.reason, groups.error_group, groups.count AS "count!", first_at AS "first_at!",
                      last_at AS "last_at!", example.id AS example, example.errors -> -1 ->> 'error' AS example_error,
                      (SELECT subject FROM users WHERE users.id = example.user_id) AS example_user
               FROM groups
               CROSS JOIN LATERAL (
                   SELECT id, errors, user_id FROM dead_tasks
                   WHERE dead_at = groups.last_at AND reason = groups.reason AND error_group = groups.error_group
                   LIMIT 1
               ) AS example
               ORDER BY CASE WHEN $2 THEN extract(epoch FROM last_at) ELSE groups.count END DESC, groups.error_group"#,
            WALK,
            order == DeadOrder::Newest,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(groups)
    }
}
