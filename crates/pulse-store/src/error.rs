//! What a caller can do about a failed statement.

use sqlx::Error as SqlxError;
use sqlx::error::DatabaseError;

/// A failed operation, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL is away, restarting, overloaded or read-only, or the outcome is unknown: try again later.
    #[error("PostgreSQL is unavailable{}", about_tls(.0))]
    Unavailable(#[source] SqlxError),
    /// A row that somebody else holds was not released in time: try again later.
    #[error("a row is locked by another transaction")]
    Locked(#[source] SqlxError),
    /// The statement took too long, or more memory than there is, and was rolled back: less of it at once may succeed.
    #[error("the statement was too much at once")]
    StatementLimit(#[source] SqlxError),
    /// A constraint or a data type refused the values: the same values fail again.
    #[error("PostgreSQL refused the values{}", constraint.as_ref().map(|name| format!(" (constraint {name})")).unwrap_or_default())]
    Refused {
        /// The constraint's name, if it was one.
        constraint: Option<String>,
        /// What PostgreSQL said.
        #[source]
        source: SqlxError,
    },
    /// A mistake of ours.
    #[error("unexpected answer of PostgreSQL")]
    Unexpected(#[source] SqlxError),
}

/// The URL, or the CA beside it, cannot be used: a sentence that has no password in it.
#[derive(Debug, thiserror::Error)]
#[error("the database URL cannot be used: {0}")]
pub struct ConfigError(pub(crate) String);

/// The foreign key from events to their user.
pub const EVENTS_USER_FK: &str = "events_user_id_fkey";

impl StoreError {
    /// Whether the connection that failed may be in the middle of something, or gone.
    pub(crate) fn breaks_connection(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Unexpected(_) => true,
            Self::Locked(_) | Self::StatementLimit(_) | Self::Refused { .. } => false,
        }
    }

    /// Whether the transaction was certainly rolled back because of what it held, so that a part of it may succeed.
    pub(crate) fn may_be_split(&self) -> bool {
        matches!(self, Self::Locked(_) | Self::Refused { .. })
    }
}

impl From<SqlxError> for StoreError {
    fn from(error: SqlxError) -> Self {
        match error.as_database_error() {
            Some(database) => {
                classify(database.code().unwrap_or_default().into_owned(), constraint_of(database), error)
            }
            None => match error {
                SqlxError::Io(_)
                | SqlxError::Tls(_)
                | SqlxError::Protocol(_)
                | SqlxError::PoolTimedOut
                | SqlxError::PoolClosed
                | SqlxError::WorkerCrashed => Self::Unavailable(error),
                other => Self::Unexpected(other),
            },
        }
    }
}

/// What to do, if it is TLS that failed: whoever waits for PostgreSQL has to hear that waiting does not help.
fn about_tls(error: &SqlxError) -> String {
    match (error, pulse_tls::explain(error)) {
        (_, Some(told)) => format!(": {told}"),
        (SqlxError::Tls(why), None) if why.to_string().contains("does not support TLS") => {
            ": it offers no TLS, which the URL's sslmode or the CA asks for: turn ssl on in PostgreSQL".into()
        }
        (SqlxError::Tls(why), None) => format!(": TLS failed: {why}"),
        (_, None) => String::new(),
    }
}

fn constraint_of(error: &dyn DatabaseError) -> Option<String> {
    error.constraint().map(str::to_owned)
}

/// SQLSTATE classes: appendix A of the PostgreSQL manual.
fn classify(code: String, constraint: Option<String>, source: SqlxError) -> StoreError {
    match (code.get(..2).unwrap_or_default(), code.as_str()) {
        // Deadlocks and lock time-outs are certain roll-backs.
        (_, "40P01" | "55P03") => StoreError::Locked(source),
        // 57014: out of time. 53200: out of memory. 54: beyond a limit of the program.
        (_, "57014" | "53200") | ("54", _) => StoreError::StatementLimit(source),
        // 42P01: no schema yet. 25006: a standby, in the middle of a failover.
        (_, "42P01" | "25006") | ("08" | "3D" | "40" | "53" | "57" | "58", _) => StoreError::Unavailable(source),
        // P0: raised by a trigger, which is as final as a constraint.
        ("22" | "23" | "P0", _) => StoreError::Refused { constraint, source },
        _ => StoreError::Unexpected(source),
    }
}
