//! Users: whose events they are.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::connection::Store;
use crate::error::StoreError;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// The user's id.
    pub id: i64,
    /// The `sub` of the user's tokens.
    pub subject: String,
    /// When the user was first seen.
    pub created_at: DateTime<Utc>,
    /// Since when the user may do nothing.
    pub disabled_at: Option<DateTime<Utc>>,
}

impl Store {
    /// The user with this subject.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_user(&self, subject: &str) -> Result<Option<User>, StoreError> {
        let user =
            sqlx::query_as!(User, "SELECT id, subject, created_at, disabled_at FROM users WHERE subject = $1", subject)
                .fetch_optional(&self.pool)
                .await?;
        Ok(user)
    }

    /// The user with this subject, created if there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_or_create_user(&self, subject: &str) -> Result<User, StoreError> {
        if let Some(user) = self.find_user(subject).await? {
            return Ok(user);
        }
        // The update does nothing, but returns the row when another request was first.
        let user = sqlx::query_as!(
            User,
            "INSERT INTO users (subject) VALUES ($1)
             ON CONFLICT (subject) DO UPDATE SET subject = excluded.subject
             RETURNING id, subject, created_at, disabled_at",
            subject,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(user)
    }

    /// Users by id, from the one after `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_users(&self, after: i64, limit: i64) -> Result<Vec<User>, StoreError> {
        let users = sqlx::query_as!(
            User,
            "SELECT id, subject, created_at, disabled_at FROM users WHERE id > $1 ORDER BY id LIMIT $2",
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(users)
    }

    /// Disables a user, or enables one again; `None` if there is no such user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_user_disabled(&self, subject: &str, disabled: bool) -> Result<Option<User>, StoreError> {
        let user = sqlx::query_as!(
            User,
            "UPDATE users SET disabled_at = CASE WHEN $2 THEN coalesce(disabled_at, now()) END WHERE subject = $1
             RETURNING id, subject, created_at, disabled_at",
            subject,
            disabled,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(user)
    }
}
