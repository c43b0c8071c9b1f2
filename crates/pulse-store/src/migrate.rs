//! The schema: plan, apply, and whether this binary knows it.
//!
//! Expand and contract only, never down. Each file of `migrations/` opens with `-- additive: yes` or `no`; additive means
//! that an older binary runs on it. What was applied is recorded with its checksum in a table of ours, so that an older
//! binary can tell whether it may run on a newer schema. One migration is one transaction; an advisory lock per
//! database keeps two of us apart.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::connection::Store;
use crate::error::StoreError;

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// The advisory lock's key: "pulse" in ASCII.
const LOCK: i64 = 0x70_756c_7365;

/// What `migrate` would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigrationPlan {
    /// The newest applied version; 0 for an empty database.
    pub current: i64,
    /// What would be applied, in order.
    pub pending: Vec<PendingMigration>,
    /// Of the binary, the current version and the pending versions with their checksums.
    pub hash: String,
    /// Applied migrations that this binary does not know, and may run on.
    pub ahead: usize,
    /// Who the database belongs to, if anybody.
    pub instance: Option<String>,
}

/// A migration that was not applied yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PendingMigration {
    /// Its time stamp.
    pub version: i64,
    /// What it does, from the file's name.
    pub name: String,
    /// Whether an older binary runs on it.
    pub additive: bool,
    /// SHA-384 of the file, in hex.
    pub checksum: String,
}

/// What `migrate` may do.
#[derive(Debug, Clone)]
pub struct MigrateConfig {
    /// Who the database is for.
    pub instance: String,
    /// Names the binary in the plan's hash: its version or image.
    pub binary: String,
    /// Refuse any other plan.
    pub expect_plan: Option<String>,
    /// Apply migrations that are not additive.
    pub allow_destructive: bool,
    /// Take a database over that belongs to another instance.
    pub take_over: bool,
}

/// Why nothing, or not all, was applied. Each migration that was is recorded.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// An applied file was changed.
    #[error("migration {version} was applied with another checksum: restore the file as it was released")]
    Checksum {
        /// The changed file.
        version: i64,
    },
    /// A pending migration breaks older binaries.
    #[error("migration {version} is not additive: stop the older version first, then pass --allow-destructive")]
    Destructive {
        /// The first such file.
        version: i64,
    },
    /// A newer binary migrated this database, and not additively.
    #[error("the schema is at version {version}, which this binary does not know: deploy the newer version")]
    SchemaAhead {
        /// The first unknown version.
        version: i64,
    },
    /// The plan is not the approved one.
    #[error("the plan is {actual}, not the expected {expected}: look at it with --plan and approve it again")]
    PlanChanged {
        /// What was approved.
        expected: String,
        /// What would be done.
        actual: String,
    },
    /// The database belongs to another instance.
    #[error(
        "the database belongs to the instance `{owner}`: use another database, or rename its owner with --take-over"
    )]
    OtherInstance {
        /// Its owner.
        owner: String,
    },
    /// PostgreSQL refused a statement of a migration. Nothing of that migration was applied.
    #[error("migration {version} failed")]
    Failed {
        /// The file.
        version: i64,
        /// What PostgreSQL said.
        #[source]
        source: sqlx::Error,
    },
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MigrateError {
    /// What a statement of a migration came to, unless PostgreSQL was away or somebody else held a lock.
    fn of(version: i64, source: sqlx::Error) -> Self {
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

struct Applied {
    version: i64,
    checksum: Vec<u8>,
    additive: bool,
}

impl Store {
    /// What [`Store::migrate`] would do.
    ///
    /// # Errors
    /// [`MigrateError::Checksum`], [`MigrateError::SchemaAhead`] or [`MigrateError::Store`].
    pub async fn plan_migration(&self, binary: &str) -> Result<MigrationPlan, MigrateError> {
        let mut connection = self.pool.acquire().await?;
        let (applied, instance) = read_ledger(&mut connection).await?;
        plan(&applied, instance, binary)
    }

    /// Applies what is pending; returns the plan that was carried out.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn migrate(&self, config: &MigrateConfig) -> Result<MigrationPlan, MigrateError> {
        // Migrations may take longer than a request, and the connection's settings are not for anybody else.
        let mut connection = self.pool.acquire().await?.detach();
        // No lock time-out at first: another migration is at work, and it will end.
        sqlx::raw_sql("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0")
            .execute(&mut connection)
            .await?;
        sqlx::query!("SELECT pg_advisory_lock($1)", LOCK).execute(&mut connection).await?;
        sqlx::raw_sql("SET lock_timeout = '10s'").execute(&mut connection).await?;
        let result = migrate_locked(&mut connection, config).await;
        // Ends the session, and with it the advisory lock.
        connection.close().await?;
        result
    }

    /// Whether this binary may run on the schema: `Ok(None)`, or what stands in the way.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn schema_problem(&self) -> Result<Option<String>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let (applied, instance) = read_ledger(&mut connection).await?;
        Ok(match plan(&applied, instance, "") {
            Ok(plan) if plan.pending.is_empty() => None,
            Ok(plan) => Some(format!("{} migrations are pending: run `pulse migrate`", plan.pending.len())),
            Err(error) => Some(error.to_string()),
        })
    }
}

/// What was applied, and who owns the database; nothing if there is no ledger yet.
async fn read_ledger(connection: &mut PgConnection) -> Result<(Vec<Applied>, Option<String>), StoreError> {
    let exists = sqlx::query_scalar!(r#"SELECT to_regclass('pulse_migrations') IS NOT NULL AND to_regclass('pulse_database') IS NOT NULL AS "exists!""#)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        return Ok((Vec::new(), None));
    }
    let applied = sqlx::query_as!(Applied, "SELECT version, checksum, additive FROM pulse_migrations ORDER BY version")
        .fetch_all(&mut *connection)
        .await?;
    let instance = sqlx::query_scalar!("SELECT instance FROM pulse_database").fetch_optional(connection).await?;
    Ok((applied, instance))
}

fn plan(applied: &[Applied], instance: Option<String>, binary: &str) -> Result<MigrationPlan, MigrateError> {
    for done in applied {
        match MIGRATOR.iter().find(|known| known.version == done.version) {
            Some(known) if known.checksum.as_ref() != done.checksum.as_slice() => {
                return Err(MigrateError::Checksum { version: done.version });
            }
            None if !done.additive => return Err(MigrateError::SchemaAhead { version: done.version }),
            Some(_) | None => {}
        }
    }
    let ahead = applied.iter().filter(|done| MIGRATOR.iter().all(|known| known.version != done.version)).count();
    let current = applied.last().map_or(0, |newest| newest.version);
    let pending: Vec<PendingMigration> = MIGRATOR
        .iter()
        .filter(|known| applied.iter().all(|done| done.version != known.version))
        .map(|known| PendingMigration {
            version: known.version,
            name: known.description.replace(' ', "_"),
            additive: known.sql.as_str().starts_with("-- additive: yes\n"),
            checksum: hex(&known.checksum),
        })
        .collect();
    let mut hash = Sha256::new();
    hash.update(format!("{binary}\n{current}\n"));
    for migration in &pending {
        hash.update(format!("{} {}\n", migration.version, migration.checksum));
    }
    let hash = hex(&hash.finalize());
    Ok(MigrationPlan { current, pending, hash, ahead, instance })
}

async fn migrate_locked(connection: &mut PgConnection, config: &MigrateConfig) -> Result<MigrationPlan, MigrateError> {
    sqlx::raw_sql(include_str!("ledger.sql")).execute(&mut *connection).await?;
    let (applied, instance) = read_ledger(connection).await?;
    let plan = plan(&applied, instance, &config.binary)?;
    match &plan.instance {
        Some(owner) if *owner != config.instance && !config.take_over => {
            return Err(MigrateError::OtherInstance { owner: owner.clone() });
        }
        _ => {}
    }
    if let Some(expected) = config.expect_plan.as_ref().filter(|expected| **expected != plan.hash) {
        return Err(MigrateError::PlanChanged { expected: expected.clone(), actual: plan.hash });
    }
    if !config.allow_destructive
        && let Some(destructive) = plan.pending.iter().find(|migration| !migration.additive)
    {
        return Err(MigrateError::Destructive { version: destructive.version });
    }
    sqlx::query!(
        "INSERT INTO pulse_database (instance) VALUES ($1) ON CONFLICT (one) DO UPDATE SET instance = excluded.instance",
        config.instance,
    )
    .execute(&mut *connection)
    .await?;
    for pending in &plan.pending {
        let migration =
            MIGRATOR.iter().find(|known| known.version == pending.version).expect("planned from the same list");
        let mut transaction = connection.begin().await?;
        // Safe: the text is a file of ours, embedded at build time.
        let statements = sqlx::raw_sql(AssertSqlSafe(migration.sql.as_str().to_owned()));
        let applied = statements.execute(&mut *transaction).await;
        applied.map_err(|source| MigrateError::of(pending.version, source))?;
        sqlx::query!(
            "INSERT INTO pulse_migrations (version, name, checksum, additive) VALUES ($1, $2, $3, $4)",
            pending.version,
            pending.name,
            migration.checksum.as_ref(),
            pending.additive,
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        tracing::info!(version = pending.version, name = pending.name, "migration applied");
    }
    sqlx::query_scalar!("SELECT ensure_month_partitions('events', 12) + ensure_month_partitions('task_history', 12)")
        .fetch_one(connection)
        .await?;
    Ok(plan)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How long a role waits between two looks at a schema that it does not know yet.
const SCHEMA_POLL: Duration = Duration::from_secs(1);

impl Store {
    /// Returns once this binary may run on the schema; says at most once per reason why it waits.
    pub async fn wait_for_schema(&self) {
        let mut told = String::new();
        loop {
            let reason = match self.schema_problem().await {
                Ok(None) => return,
                Ok(Some(problem)) => problem,
                Err(error) => error.to_string(),
            };
            if reason != told {
                tracing::warn!(reason, "waiting for a schema that this version knows");
                told = reason;
            }
            tokio::time::sleep(SCHEMA_POLL).await;
        }
    }
}
