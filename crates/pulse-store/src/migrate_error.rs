//! Why a migration failed.

use crate::error::StoreError;

/// A failed migration. `pulse_migrations` records the migrations that were applied before it.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The file of an applied migration was changed.
    #[error("migration {version} was applied with another checksum: restore the released file")]
    Checksum {
        /// Version of the changed file.
        version: i64,
    },
    /// A pending migration breaks older binaries.
    #[error("migration {version} is not additive: stop the older version first, then pass --allow-destructive")]
    Destructive {
        /// Version of the first such migration.
        version: i64,
    },
    /// A newer binary applied a migration that is not additive.
    #[error("this binary does not support version {version} of the schema: deploy the newer version")]
    SchemaAhead {
        /// First unsupported version.
        version: i64,
    },
    /// The plan differs from the approved one.
    #[error("the plan is {actual}, not the expected {expected}: read it with --plan and approve it again")]
    PlanChanged {
        /// Hash of the approved plan.
        expected: String,
        /// Hash of the present plan.
        actual: String,
    },
    /// The database belongs to another instance.
    #[error(
        "the database belongs to the instance `{owner}`: use another database, or rename its owner with --take-over"
    )]
    OtherInstance {
        /// Instance that owns the database.
        owner: String,
    },
    /// A role cannot be granted privileges. Nothing was applied.
    #[error("the role `{role}` {problem}")]
    Role {
        /// Name of the role.
        role: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// PostgreSQL refused a statement of a migration. Nothing of that migration was applied.
    #[error("migration {version} failed")]
    Failed {
        /// Version of the migration.
        version: i64,
        /// The error of PostgreSQL.
        #[source]
        source: sqlx::Error,
    },
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MigrateError {
    /// Classifies the error of a statement of a migration.
    pub(crate) fn of(version: i64, source: sqlx::Error) -> Self {
        let code = source.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        match code.as_deref() {
            None | Some("55P03" | "40P01") => source.into(),
            Some(code) if ["08", "53", "57", "58"].contains(&code.get(..2).unwrap_or_default()) => source.into(),
            Some(_) => Self::Failed { version, source },
        }
    }
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
