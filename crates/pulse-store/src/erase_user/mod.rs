//! Erasure of a user: all rows of the user, in small transactions, and the user's own row last.
//!
//! The row is last so that an interrupted erasure can be run again, which continues it. No transaction waits for a locked
//! row, or locks many rows: such rows are left to the next pass. Each transaction locks the row of the user against a hold,
//! so a hold that is set meanwhile stops the erasure at once.

mod chunks;
mod error;
mod left;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::Instant;

use chunks::Erasure;
pub use error::EraseError;
use left::{has_rows, patient_transaction};

use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;
use crate::user_rows::UserRows;
use crate::users::User;

/// Pause before the next pass over rows that other transactions had locked.
const PASS_PAUSE: Duration = Duration::from_millis(500);
/// Time of passes that delete nothing, after which the erasure gives up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// When an erasure ran, as its rows in the audit log say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ErasedUser {
    /// Time of the first row of its act.
    pub started_at: DateTime<Utc>,
    /// Time of the transaction that deleted the row of the user.
    pub finished_at: DateTime<Utc>,
}

impl Store {
    /// Deletes all rows of a disabled user but that in `users`, and adds their numbers to `rows`. Calls `progress` after each
    /// transaction.
    ///
    /// # Errors
    /// [`EraseError::OnHold`] also if a hold begins meanwhile, [`EraseError::Busy`], and [`EraseError::Store`]. `rows` has what
    /// is deleted until then.
    pub async fn erase_rows(
        &self,
        user: &User,
        rows: &mut UserRows,
        progress: impl FnMut(&UserRows),
    ) -> Result<(), EraseError> {
        let mut erasure = Erasure { store: self, user_id: user.id, rows, progress };
        let mut give_up_at = Instant::now() + GIVE_UP_AFTER;
        loop {
            let before = *erasure.rows;
            match erasure.pass().await {
                Ok(true) => return Ok(()),
                Ok(false) | Err(EraseError::Store(StoreError::Locked(_))) => {}
                Err(error) => return Err(error),
            }
            if *erasure.rows != before {
                give_up_at = Instant::now() + GIVE_UP_AFTER;
            } else if Instant::now() >= give_up_at {
                return Err(EraseError::Busy);
            }
            tokio::time::sleep(PASS_PAUSE).await;
        }
    }

    /// Deletes the row of a user of whom nothing else is left, and adds it to `rows`. Leaves a row in the audit log, with the
    /// number of all `rows`.
    ///
    /// Returns `None` if other rows have appeared since [`erase_rows`](Self::erase_rows): call both again. A request that was
    /// authenticated before the user was disabled may still post: it waits for this transaction, or this one sees its rows.
    ///
    /// # Errors
    /// [`EraseError`].
    pub async fn erase_user_row(
        &self,
        user: &User,
        act: &Act,
        rows: &mut UserRows,
    ) -> Result<Option<ErasedUser>, EraseError> {
        let give_up_at = Instant::now() + GIVE_UP_AFTER;
        loop {
            match self.try_erase_user_row(user.id, act, rows).await {
                Err(EraseError::Store(StoreError::Locked(_))) if Instant::now() < give_up_at => {
                    tokio::time::sleep(PASS_PAUSE).await;
                }
                Err(EraseError::Store(StoreError::Locked(_))) => return Err(EraseError::Busy),
                other => return other,
            }
        }
    }

    async fn try_erase_user_row(
        &self,
        user_id: i64,
        act: &Act,
        rows: &mut UserRows,
    ) -> Result<Option<ErasedUser>, EraseError> {
        let mut transaction = patient_transaction(self).await?;
        let held_at = sqlx::query_scalar!("SELECT held_at FROM users WHERE id = $1 FOR UPDATE NOWAIT", user_id)
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(since) = held_at.ok_or(EraseError::Gone)? {
            return Err(EraseError::OnHold(since));
        }
        if has_rows(&mut transaction, user_id).await? {
            return Ok(None);
        }
        let erased = sqlx::query_as!(
            ErasedUser,
            r#"WITH deleted AS (DELETE FROM users WHERE id = $1 RETURNING subject), audited AS (
                   INSERT INTO audit_log (act, actor, via, reason, action, target, count)
                   SELECT $2, $3, $4, $5, 'user.erase', subject, $6 FROM deleted RETURNING at
               )
               SELECT coalesce((SELECT min(audit_log.at) FROM audit_log WHERE audit_log.act = $2), at) AS "started_at!",
                      at AS "finished_at!"
               FROM audited"#,
            user_id,
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
            i64::try_from(rows.total() + 1).unwrap_or(i64::MAX),
        )
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        rows.users += 1;
        Ok(Some(erased))
    }
}
