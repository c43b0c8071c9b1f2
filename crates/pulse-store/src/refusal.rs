//! Why tasks of a group were not accepted.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::acceptance::{AcceptError, Acceptance, NewTask, OwnerProblem};
use crate::error::StoreError;
use crate::idempotency::find_keys;

/// The answers to tasks that `accept.sql` did not accept: the stored answer to their Idempotency-Key, or an error.
pub(crate) async fn answers(
    connection: &mut PgConnection,
    tasks: &[&NewTask],
) -> Result<Vec<Result<Acceptance, AcceptError>>, StoreError> {
    let ids: Vec<i64> = tasks.iter().map(|task| task.user_id).collect();
    let users =
        sqlx::query!(r#"SELECT id, disabled_at IS NOT NULL AS "disabled!" FROM users WHERE id = ANY ($1)"#, &ids)
            .fetch_all(&mut *connection)
            .await?;
    let users: HashMap<i64, bool> = users.into_iter().map(|user| (user.id, user.disabled)).collect();
    let keys: Vec<_> = tasks.iter().filter_map(|task| Some((task.user_id, task.key.as_ref()?))).collect();
    let stored = find_keys(connection, &keys).await?;
    Ok(tasks
        .iter()
        .map(|task| match (users.get(&task.user_id), &task.key) {
            (None, _) => Err(OwnerProblem::Deleted.into()),
            (Some(true), _) => Err(OwnerProblem::Disabled.into()),
            (Some(false), Some(key))
                if let Some(stored) = stored.get(&(task.user_id, key.route.to_owned(), key.key.clone())) =>
            {
                stored.answer(key)
            }
            (Some(false), _) => Err(OwnerProblem::Locked.into()),
        })
        .collect())
}
