//! The pause of all claims: a row that the statement of each claim sees, so that it works at once.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;

/// A pause: workers claim nothing, and running tasks end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pause {
    /// Since when.
    pub paused_at: DateTime<Utc>,
    /// Who paused.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
}

impl Store {
    /// Pauses all claims; returns whether they were not paused before. A claim that is under way may still be committed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn pause(&self, act: &Act) -> Result<bool, StoreError> {
        let paused = sqlx::query!(
            "WITH paused AS (
                 INSERT INTO pause (actor, reason) VALUES ($2, $4) ON CONFLICT DO NOTHING RETURNING one
             )
             INSERT INTO audit_log (act, actor, via, reason, action, target, count)
             SELECT $1, $2, $3, $4, 'pause', 'all claims', 0 FROM paused",
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .execute(&self.pool)
        .await?;
        Ok(paused.rows_affected() > 0)
    }

    /// Resumes all claims; returns whether they were paused.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn resume(&self, act: &Act) -> Result<bool, StoreError> {
        let resumed = sqlx::query!(
            "WITH resumed AS (DELETE FROM pause RETURNING one)
             INSERT INTO audit_log (act, actor, via, reason, action, target, count)
             SELECT $1, $2, $3, $4, 'resume', 'all claims', 0 FROM resumed",
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .execute(&self.pool)
        .await?;
        Ok(resumed.rows_affected() > 0)
    }

    /// The pause; `None` if claims are not paused.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn find_pause(&self) -> Result<Option<Pause>, StoreError> {
        let pause = sqlx::query_as!(Pause, "SELECT paused_at, actor, reason FROM pause")
            .fetch_optional(&mut *self.probe_connection().await?)
            .await?;
        Ok(pause)
    }
}
