//! Errors, classified by what the caller can do.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Error as SqlxError;
use sqlx::error::DatabaseError;

/// A failed operation. Cheap to clone, because all members of a group get the same error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL is unreachable, restarting, overloaded or read-only, or the outcome is unknown: try again later.
    #[error("PostgreSQL is unavailable: {}", cause(.0))]
    Unavailable(Arc<SqlxError>),
    /// PostgreSQL did not answer in time, and the outcome is unknown: try again later.
    #[error("PostgreSQL is unavailable: it did not answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// Another transaction held a row lock for longer than `lock_timeout`: try again later.
    #[error("a row is locked by another transaction")]
    Locked(#[source] Arc<SqlxError>),
    /// The statement hit a limit of time, memory or size and was rolled back: split it and try again.
    #[error("the statement exceeded a limit of PostgreSQL")]
    StatementLimit(#[source] Arc<SqlxError>),
    /// A constraint or a data type refused the values: the same values will fail again.
    #[error("PostgreSQL refused the values{}", constraint.as_ref().map(|name| format!(" (constraint {name})")).unwrap_or_default())]
    Refused {
        /// Name of the constraint; `None` for a data type.
        constraint: Option<String>,
        /// The error of PostgreSQL.
        #[source]
        source: Arc<SqlxError>,
    },
    /// A bug: a statement or a type does not fit the schema.
    #[error("unexpected answer from PostgreSQL: {}", cause(.0))]
    Unexpected(#[source] Arc<SqlxError>),
}

/// An unusable URL or CA bundle. The text contains no password.
#[derive(Debug, thiserror::Error)]
#[error("the database URL cannot be used: {0}")]
pub struct ConfigError(pub(crate) String);

impl StoreError {
    /// Whether the connection has to be closed, because its state is unknown.
    pub(crate) fn breaks_connection(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::TimedOut(_) | Self::Unexpected(_) => true,
            Self::Locked(_) | Self::StatementLimit(_) | Self::Refused { .. } => false,
        }
    }

    /// The error of a pooler that does not keep sessions.
    pub(crate) fn transaction_pooler() -> Self {
        Self::Unavailable(SqlxError::Configuration(TRANSACTION_POOLER.into()).into())
    }

    /// Whether the transaction was rolled back because of its content, so that a part of it may succeed.
    pub(crate) fn may_be_split(&self) -> bool {
        matches!(self, Self::Locked(_) | Self::Refused { .. })
    }
}

impl From<SqlxError> for StoreError {
    fn from(error: SqlxError) -> Self {
        match error.as_database_error() {
            Some(database) => {
                classify(database.code().unwrap_or_default().into_owned(), constraint_of(database), error.into())
            }
            None => match error {
                SqlxError::Io(_)
                | SqlxError::Tls(_)
                | SqlxError::Protocol(_)
                | SqlxError::PoolTimedOut
                | SqlxError::PoolClosed
                | SqlxError::WorkerCrashed => Self::Unavailable(error.into()),
                other if is_answer_of_other_statement(&other) => Self::Unavailable(other.into()),
                other => Self::Unexpected(other.into()),
            },
        }
    }
}

/// What to do about a pooler whose sessions do not last.
const TRANSACTION_POOLER: &str = "a pooler such as PgBouncer runs in transaction mode, in which settings and prepared \
    statements are lost: set pool_mode = session for this database, or connect to PostgreSQL directly";

/// What is wrong and, if waiting does not solve it, what to do. Has no password.
fn cause(error: &SqlxError) -> String {
    if let Some(explanation) = pulse_tls::explain(error) {
        return explanation;
    }
    match error {
        SqlxError::Tls(why) if why.to_string().contains("does not support TLS") => {
            "the server does not support TLS, but sslmode in the URL or the CA requires it: set ssl = on in PostgreSQL"
                .into()
        }
        SqlxError::Tls(why) => format!("TLS failed: {why}"),
        SqlxError::Io(why) => why.to_string(),
        SqlxError::Configuration(why) => why.to_string(),
        other if is_answer_of_other_statement(other) => format!("{TRANSACTION_POOLER} ({other})"),
        SqlxError::PoolTimedOut => "all connections of the pool are in use, or none could be opened in time".into(),
        SqlxError::Database(refusal) => match refusal.code().as_deref() {
            Some(code) if is_lost_session(code) => format!("{TRANSACTION_POOLER} ({})", refusal.message()),
            Some(MISSING_PRIVILEGE) => {
                format!("{}: name the role in --serving-role of the next `pulse migrate`", refusal.message())
            }
            _ => refusal.message().to_owned(),
        },
        other => other.to_string(),
    }
}

const MISSING_PRIVILEGE: &str = "42501";

/// Duplicate or unknown prepared statement: two sessions share a backend.
fn is_lost_session(code: &str) -> bool {
    matches!(code, "42P05" | "26000")
}

/// Rows or columns are missing. The build checks each statement against the schema, so another statement answered: two
/// sessions share a backend.
fn is_answer_of_other_statement(error: &SqlxError) -> bool {
    use SqlxError::{ColumnDecode, ColumnIndexOutOfBounds, ColumnNotFound, RowNotFound};
    matches!(error, RowNotFound | ColumnNotFound(_) | ColumnIndexOutOfBounds { .. } | ColumnDecode { .. })
}

fn constraint_of(error: &dyn DatabaseError) -> Option<String> {
    error.constraint().map(str::to_owned)
}

/// SQLSTATE classes: appendix A of the PostgreSQL manual.
fn classify(code: String, constraint: Option<String>, source: Arc<SqlxError>) -> StoreError {
    match (code.get(..2).unwrap_or_default(), code.as_str()) {
        // After a deadlock or a lock time-out, the transaction is rolled back.
        (_, "40P01" | "55P03") => StoreError::Locked(source),
        // 57014: statement_timeout. 53200: out of memory. 54: program limit exceeded.
        (_, "57014" | "53200") | ("54", _) => StoreError::StatementLimit(source),
        // 42P01: no schema yet. 25006: a standby, during a failover. 28: user or password.
        (_, "42P01" | "25006" | MISSING_PRIVILEGE) | ("08" | "28" | "3D" | "40" | "53" | "57" | "58", _) => {
            StoreError::Unavailable(source)
        }
        (_, code) if is_lost_session(code) => StoreError::Unavailable(source),
        // P0: raised by a trigger, and as final as a constraint.
        ("22" | "23" | "P0", _) => StoreError::Refused { constraint, source },
        _ => StoreError::Unexpected(source),
    }
}
