//! The acts on tasks that run, and how they end.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;

/// Maximum number of acts that run at a time, of all processes.
const MAX_RUNNING: i64 = 16;

/// How an act on tasks ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActOutcome {
    /// It moved all that it could.
    Completed,
    /// An administrator stopped it, or its process ended.
    Stopped,
    /// PostgreSQL did not answer for too long.
    Failed,
    /// Its process was gone for 30 s.
    Interrupted,
}

impl ActOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// An act on tasks that runs or ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ActStatus {
    /// Id of the act.
    pub act: Uuid,
    /// `running`, `stopping`, `completed`, `stopped`, `failed` or `interrupted`.
    pub state: String,
    /// Who acted.
    pub actor: String,
    /// `cli`, `console` or `api`.
    pub via: String,
    /// `tasks.retry` or `tasks.cancel`.
    pub action: String,
    /// The filter.
    pub target: String,
    /// Why.
    pub reason: Option<String>,
    /// Number of tasks that matched at the beginning; null once it has ended, and if they were not counted.
    pub matching: Option<i64>,
    /// Number of tasks that were moved.
    pub moved: i64,
    /// Maximum number of tasks per second; null once it has ended, and without a maximum.
    pub rate: Option<i32>,
    /// When it began; null once it has ended.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended; null while it runs.
    pub ended_at: Option<DateTime<Utc>>,
}

impl Store {
    /// Registers an act; returns whether it may run.
    pub(super) async fn register_act(
        &self,
        action: &str,
        target: &str,
        (matching, rate): (Option<i64>, Option<i32>),
        act: &Act,
    ) -> Result<bool, StoreError> {
        let registered = sqlx::query!(
            "INSERT INTO running_acts (act, actor, via, reason, action, target, matching, rate)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8 WHERE (SELECT count(*) FROM running_acts) < $9",
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
            action,
            target,
            matching,
            rate,
            MAX_RUNNING,
        )
        .execute(&self.pool)
        .await?;
        Ok(registered.rows_affected() > 0)
    }

    /// Moves the row of an act to the audit log, unless that was done.
    pub(super) async fn end_act(&self, act: Uuid, outcome: ActOutcome) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH ended AS (DELETE FROM running_acts WHERE act = $1 RETURNING *)
             INSERT INTO audit_log (act, actor, via, reason, action, target, count, outcome)
             SELECT act, actor, via, reason, action, target, moved, $2 FROM ended",
            act,
            outcome.as_str(),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Ends the acts whose processes have not moved anything for 30 s, because they are gone; returns their number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn end_interrupted_acts(&self) -> Result<u64, StoreError> {
        let ended = sqlx::query!(
            "WITH ended AS (DELETE FROM running_acts WHERE seen_at < now() - interval '30 s' RETURNING *)
             INSERT INTO audit_log (act, actor, via, reason, action, target, count, outcome)
             SELECT act, actor, via, reason, action, target, moved, $1 FROM ended",
            ActOutcome::Interrupted.as_str(),
        )
        .execute(&self.pool)
        .await?;
        Ok(ended.rows_affected())
    }

    /// Stops an act before its next transaction; returns whether it runs. Waits for the present one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn stop_act(&self, act: Uuid) -> Result<bool, StoreError> {
        let stopped =
            sqlx::query!("UPDATE running_acts SET is_stopping = true WHERE act = $1", act).execute(&self.pool).await?;
        Ok(stopped.rows_affected() > 0)
    }

    /// The acts that run, latest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn running_acts(&self) -> Result<Vec<ActStatus>, StoreError> {
        let acts = sqlx::query_as!(
            ActStatus,
            r#"SELECT act, CASE WHEN is_stopping THEN 'stopping' ELSE 'running' END AS "state!", actor, via, action, target,
                      reason, matching, moved, rate, started_at AS "started_at?", NULL::timestamptz AS ended_at
               FROM running_acts ORDER BY started_at DESC"#,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(acts)
    }

    /// An act on tasks; `None` if there is none with this id.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn find_act(&self, act: Uuid) -> Result<Option<ActStatus>, StoreError> {
        let found = sqlx::query_as!(
            ActStatus,
            r#"SELECT act AS "act!", CASE WHEN is_stopping THEN 'stopping' ELSE 'running' END AS "state!", actor AS "actor!",
                      via AS "via!", action AS "action!", target AS "target!", reason, matching, moved AS "moved!", rate,
                      started_at, NULL::timestamptz AS ended_at
               FROM running_acts WHERE act = $1
               UNION ALL
               SELECT act, outcome, actor, via, action, target, reason, NULL, count, NULL, NULL, at
               FROM audit_log WHERE act = $1 AND outcome IS NOT NULL
               LIMIT 1"#,
            act,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(found)
    }
}
