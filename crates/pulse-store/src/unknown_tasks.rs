//! Tasks that others know and PostgreSQL does not, because it was restored to an earlier moment.

use uuid::Uuid;

use crate::connection::Store;
use crate::error::StoreError;

impl Store {
    /// Those of `ids` that are no task: neither unsettled, nor settled, nor dead.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn unknown_tasks(&self, ids: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let unknown = sqlx::query_scalar!(
            r#"SELECT id AS "id!" FROM unnest($1::uuid[]) AS known (id)
               WHERE id NOT IN (SELECT id FROM tasks WHERE id = ANY ($1)
                                UNION ALL SELECT id FROM dead_tasks WHERE id = ANY ($1)
                                UNION ALL SELECT id FROM settled_tasks_by_id($1))"#,
            ids,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(unknown)
    }
}
