//! Limits of users: changes by administrators, and what the API processes know of them and of each other.

use chrono::{DateTime, Utc};
use pulse_core::UserLimits;
use sqlx::types::Json;

use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;

/// Maximum number of changes in an update: more than `pulse user limit` makes in the minute that an update looks back.
const MAX_CHANGES: i64 = 10_000;

/// What an API process reads every few seconds.
#[derive(Debug, Clone)]
pub struct LimitsUpdate {
    /// Number of running API processes, with this one.
    pub api_processes: u32,
    /// Subjects whose limits have changed, with their limits.
    pub changed: Vec<(String, UserLimits)>,
    /// PostgreSQL's time of this update, for the next one.
    pub read_at: DateTime<Utc>,
}

impl Store {
    /// Sets the limits of a user that are not `None` in `limits`, and keeps the others. Returns the new limits; `None` if
    /// the user does not exist. Leaves a row in the audit log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn set_user_limits(
        &self,
        subject: &str,
        limits: &UserLimits,
        act: &Act,
    ) -> Result<Option<UserLimits>, StoreError> {
        let limits = sqlx::query_scalar!(
            r#"WITH changed AS (
                   UPDATE users SET limits = limits || $2, limits_changed_at = now() WHERE subject = $1
                   RETURNING subject, limits
               ), audited AS (
                   INSERT INTO audit_log (act, actor, via, reason, action, target, count)
                   SELECT $3, $4, $5, $6, 'user.limit', subject, 1 FROM changed
               )
               SELECT limits AS "limits: Json<UserLimits>" FROM changed"#,
            subject,
            Json(limits) as _,
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(limits.map(|Json(limits)| limits))
    }

    /// Removes all limits of a user, so that those of the instance apply. Returns whether the user exists. Leaves a row in
    /// the audit log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn clear_user_limits(&self, subject: &str, act: &Act) -> Result<bool, StoreError> {
        let cleared = sqlx::query!(
            "WITH changed AS (
                 UPDATE users SET limits = '{}', limits_changed_at = now() WHERE subject = $1 RETURNING subject
             )
             INSERT INTO audit_log (act, actor, via, reason, action, target, count)
             SELECT $2, $3, $4, $5, 'user.clear_limits', subject, 1 FROM changed",
            subject,
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .execute(&self.pool)
        .await?;
        Ok(cleared.rows_affected() > 0)
    }

    /// Records that the API process `name` runs, and reads what has changed since `since`, the time of the last update.
    /// A process counts as running for 15 s.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn update_limits(&self, name: &str, since: Option<DateTime<Utc>>) -> Result<LimitsUpdate, StoreError> {
        let connection = &mut *self.probe_connection().await?;
        let seen = sqlx::query!(
            r#"WITH this AS (INSERT INTO api_processes (name) VALUES ($1)
                             ON CONFLICT (name) DO UPDATE SET seen_at = now()),
                    ended AS (DELETE FROM api_processes WHERE seen_at < now() - interval '1 hour' AND name <> $1)
               SELECT now() AS "now!", count(*) AS "others!" FROM api_processes
               WHERE name <> $1 AND seen_at > now() - interval '15 s'"#,
            name,
        )
        .fetch_one(&mut *connection)
        .await?;
        // A minute more than the time since then, because changes are visible some time after their `now()`.
        let changed = sqlx::query!(
            r#"SELECT subject, limits AS "limits: Json<UserLimits>" FROM users
               WHERE limits_changed_at > $1::timestamptz - interval '1 minute'
               ORDER BY limits_changed_at DESC LIMIT $2"#,
            since.unwrap_or(seen.now),
            MAX_CHANGES,
        )
        .fetch_all(connection)
        .await?;
        Ok(LimitsUpdate {
            api_processes: u32::try_from(seen.others + 1).unwrap_or(u32::MAX),
            changed: changed.into_iter().map(|row| (row.subject, row.limits.0)).collect(),
            read_at: seen.now,
        })
    }
}
