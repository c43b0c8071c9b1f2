//! Whether rows of the user are left.

use sqlx::{PgConnection, Postgres, Transaction};

use crate::connection::Store;
use crate::error::StoreError;

/// A transaction with a long time limit: its statements walk over the index entries of all deleted events, which takes
/// seconds for millions of them. Only requests of this user could wait for it, and the API refuses these.
pub(super) async fn patient_transaction(store: &Store) -> Result<Transaction<'static, Postgres>, StoreError> {
    let mut transaction = store.pool.begin().await?;
    sqlx::query!("SELECT set_config('statement_timeout', '60s', true)").fetch_one(&mut *transaction).await?;
    Ok(transaction)
}

/// Whether any row of the user is left, apart from those in `users` and `task_history`.
pub(super) async fn has_rows(connection: &mut PgConnection, user_id: i64) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM tasks WHERE tasks.user_id = $1)
                  OR EXISTS (SELECT FROM dead_tasks WHERE dead_tasks.user_id = $1)
                  OR EXISTS (SELECT FROM events WHERE user_id = $1)
                  OR EXISTS (SELECT FROM idempotency_keys WHERE user_id = $1) AS "has_rows!""#,
        user_id,
    )
    .fetch_one(connection)
    .await?)
}
