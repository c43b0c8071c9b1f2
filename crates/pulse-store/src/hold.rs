//! Holds: while a user is held, neither erasure nor retention deletes anything of the user.

use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;

impl Store {
    /// Holds a user; a second time keeps the time of the first one. Returns whether the user exists. Leaves a row in the
    /// audit log. No erasure deletes rows of the user after this returns, not even one that runs already.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if a transaction, such as the last one of an erasure, has locked the user for 2 s;
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn hold_user(&self, subject: &str, act: &Act) -> Result<bool, StoreError> {
        let held = sqlx::query!(
            "WITH changed AS (
                 UPDATE users SET held_at = coalesce(held_at, now()) WHERE subject = $1 RETURNING subject
             )
             INSERT INTO audit_log (act, actor, via, reason, action, target, count)
             SELECT $2, $3, $4, $5, 'user.hold', subject, 1 FROM changed",
            subject,
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .execute(&self.pool)
        .await?;
        Ok(held.rows_affected() > 0)
    }

    /// Ends the hold of a user, if there is one. Returns whether the user exists. Leaves a row in the audit log.
    ///
    /// # Errors
    /// [`StoreError::Locked`] as above; [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn release_user(&self, subject: &str, act: &Act) -> Result<bool, StoreError> {
        let released = sqlx::query!(
            "WITH changed AS (UPDATE users SET held_at = NULL WHERE subject = $1 RETURNING subject)
             INSERT INTO audit_log (act, actor, via, reason, action, target, count)
             SELECT $2, $3, $4, $5, 'user.release', subject, 1 FROM changed",
            subject,
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .execute(&self.pool)
        .await?;
        Ok(released.rows_affected() > 0)
    }
}
