//! Users: the owners of events.

use chrono::{DateTime, Utc};
use pulse_core::UserLimits;
use serde::Serialize;
use sqlx::types::Json;

use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;
use crate::pooler::whole_rows;

/// A row of `users`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// Primary key.
    pub id: i64,
    /// The `sub` of the user's tokens.
    pub subject: String,
    /// Time of creation, which is the first use of a token unless an administrator created the user.
    pub created_at: DateTime<Utc>,
    /// Time of disabling; the API answers 403 to a disabled user.
    pub disabled_at: Option<DateTime<Utc>>,
    /// Begin of the hold; nothing of a held user is erased, or removed by retention.
    pub held_at: Option<DateTime<Utc>>,
    /// Limits of this user, before those of the instance.
    pub limits: UserLimits,
}

struct Row {
    id: i64,
    subject: String,
    created_at: DateTime<Utc>,
    disabled_at: Option<DateTime<Utc>>,
    held_at: Option<DateTime<Utc>>,
    limits: Json<UserLimits>,
}

impl From<Row> for User {
    fn from(Row { id, subject, created_at, disabled_at, held_at, limits: Json(limits) }: Row) -> Self {
        Self { id, subject, created_at, disabled_at, held_at, limits }
    }
}

impl Store {
    /// Returns the user with this `sub`, disabled or not.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn find_user(&self, subject: &str) -> Result<Option<User>, StoreError> {
        let connection = &mut *self.probe_connection().await?;
        let user = sqlx::query_as!(
            Row,
            r#"SELECT id, subject, created_at, disabled_at, held_at, limits AS "limits: Json<UserLimits>"
               FROM users WHERE subject = $1"#,
            subject,
        )
        .fetch_optional(connection);
        Ok(whole_rows(user).await?.map(User::from))
    }

    /// Creates the user with this `sub`, or returns it if it exists meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn create_user(&self, subject: &str) -> Result<User, StoreError> {
        // DO UPDATE, because DO NOTHING returns no row when a concurrent request inserts first. It changes nothing, and it
        // is not `subject`, which only the owner of the table may update.
        let connection = &mut *self.probe_connection().await?;
        let user = sqlx::query_as!(
            Row,
            r#"INSERT INTO users (subject) VALUES ($1)
               ON CONFLICT (subject) DO UPDATE SET disabled_at = users.disabled_at
               RETURNING id, subject, created_at, disabled_at, held_at, limits AS "limits: Json<UserLimits>""#,
            subject,
        )
        .fetch_one(connection);
        Ok(whole_rows(user).await?.into())
    }

    /// Lists users with an id greater than `after`, by id.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn list_users(&self, after: i64, limit: i64) -> Result<Vec<User>, StoreError> {
        let users = sqlx::query_as!(
            Row,
            r#"SELECT id, subject, created_at, disabled_at, held_at, limits AS "limits: Json<UserLimits>"
               FROM users WHERE id > $1 ORDER BY id LIMIT $2"#,
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(users.into_iter().map(User::from).collect())
    }

    /// Creates the user with this `sub`, as an administrator's act; `None` if it exists.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn add_user(&self, subject: &str, act: &Act) -> Result<Option<User>, StoreError> {
        let user = sqlx::query_as!(
            Row,
            r#"WITH changed AS (
                   INSERT INTO users (subject) VALUES ($1) ON CONFLICT (subject) DO NOTHING RETURNING *
               ), audited AS (
                   INSERT INTO audit_log (act, actor, via, reason, action, target, count)
                   SELECT $2, $3, $4, $5, 'user.create', subject, 1 FROM changed
               )
               SELECT id, subject, created_at, disabled_at, held_at, limits AS "limits: Json<UserLimits>" FROM changed"#,
            subject,
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(user.map(User::from))
    }

    /// Disables a user, who is created if no token of it was seen yet. Disabling twice keeps the first time. Leaves a row in
    /// the audit log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn disable_user(&self, subject: &str, act: &Act) -> Result<User, StoreError> {
        let user = sqlx::query_as!(
            Row,
            r#"WITH changed AS (
                   INSERT INTO users (subject, disabled_at) VALUES ($1, now())
                   ON CONFLICT (subject) DO UPDATE SET disabled_at = coalesce(users.disabled_at, now())
                   RETURNING *
               ), audited AS (
                   INSERT INTO audit_log (act, actor, via, reason, action, target, count)
                   SELECT $2, $3, $4, $5, 'user.disable', subject, 1 FROM changed
               )
               SELECT id, subject, created_at, disabled_at, held_at, limits AS "limits: Json<UserLimits>" FROM changed"#,
            subject,
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(user.into())
    }

    /// Enables a user; `None` if the user does not exist. Leaves a row in the audit log.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn enable_user(&self, subject: &str, act: &Act) -> Result<Option<User>, StoreError> {
        let user = sqlx::query_as!(
            Row,
            r#"WITH changed AS (
                   UPDATE users SET disabled_at = NULL WHERE subject = $1 RETURNING *
               ), audited AS (
                   INSERT INTO audit_log (act, actor, via, reason, action, target, count)
                   SELECT $2, $3, $4, $5, 'user.enable', subject, 1 FROM changed
               )
               SELECT id, subject, created_at, disabled_at, held_at, limits AS "limits: Json<UserLimits>" FROM changed"#,
            subject,
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(user.map(User::from))
    }
}
