//! Counts the tasks that a retry or a cancellation would take, before it takes them.

use crate::connection::Store;
use crate::error::StoreError;
use crate::tasks::TaskFilter;

/// A statement that counts the matching rows of a table, at most `$limit`.
macro_rules! count_tasks {
    ($table:literal, $state:literal, $group:literal, $filter:expr, $limit:expr) => {
        sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM (
                   SELECT FROM "#
                + $table
                + "
                   WHERE ($1::uuid[] IS NULL OR id = ANY ($1)) AND "
                + $state
                + " = ANY ($2::text[])
                         AND ($3::bigint IS NULL OR user_id = $3)
                         AND ($4::text IS NULL OR errors -> -1 ->> 'reason' = $4)
                         AND ($5::text IS NULL OR "
                + $group
                + " = $5)
                   LIMIT $6
               ) AS matching",
            $filter.ids.as_deref(),
            &$filter.state_names() as &[&str],
            $filter.user_id,
            $filter.reason.as_deref(),
            $filter.error_group.as_deref(),
            $limit,
        )
    };
}

impl Store {
    /// Counts the tasks that match the filter, up to `limit`.
    ///
    /// # Errors
    /// [`StoreError::StatementLimit`] if the filter matches too few of many tasks; [`StoreError::Unavailable`] if PostgreSQL
    /// does not answer.
    pub async fn count_tasks(&self, filter: &TaskFilter, limit: i64) -> Result<i64, StoreError> {
        let filter = &self.with_children(filter).await?;
        let mut count = 0;
        if filter.has_unsettled() {
            count += count_tasks!(
                "tasks",
                "task_state(lease_until, attempts)",
                "error_group(errors -> -1 ->> 'error')",
                filter,
                limit
            )
            .fetch_one(&self.pool)
            .await?;
        }
        if filter.has_dead() {
            count += count_tasks!("dead_tasks", "'dead'", "error_group", filter, limit - count)
                .fetch_one(&self.pool)
                .await?;
        }
        Ok(count)
    }
}
