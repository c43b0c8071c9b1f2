//! Why an erasure ends before its end.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::error::StoreError;

/// An erasure that did not reach its end. What is deleted stays deleted, and running it again continues.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EraseError {
    /// The user is held, since this time.
    #[error(
        "the user is held since {}, and nothing of a held user is erased: `pulse user release` ends the hold",
        .0.to_rfc3339_opts(SecondsFormat::Secs, true)
    )]
    OnHold(DateTime<Utc>),
    /// Other transactions had locked rows of the user for 30 s.
    #[error("other transactions use rows of the user")]
    Busy,
    /// The row of the user was gone before its deletion.
    #[error("another erasure has deleted the user meanwhile")]
    Gone,
    /// PostgreSQL did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for EraseError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
