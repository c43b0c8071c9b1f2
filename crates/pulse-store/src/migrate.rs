//! Migrations: plan, apply, and check whether this binary supports the schema.
//!
//! Schema changes expand and contract; there are no down migrations. Each file of `migrations/` starts with
//! `-- additive: yes` or `-- additive: no`. An older binary can run on a schema whose newer migrations are all additive;
//! the table `pulse_migrations` records what was applied, with checksums, so that it can check that. One migration is one
//! transaction. An advisory lock per database admits one migration process at a time.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;
use crate::migrate_error::MigrateError;
use crate::privileges::GrantedRoles;

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// Key of the advisory lock: "pulse" in ASCII.
const LOCK: i64 = 0x70_756c_7365;

/// The migrations that [`Store::migrate`] would apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigrationPlan {
    /// Latest applied version; 0 for an empty database.
    pub current: i64,
    /// Migrations to apply, in order.
    pub pending: Vec<PendingMigration>,
    /// SHA-256 over the binary, the current version and the pending versions with their checksums, in hex.
    pub hash: String,
    /// Number of applied migrations that are newer than this binary; all of them are additive.
    pub ahead: usize,
    /// Instance that owns the database; `None` before the first migration.
    pub instance: Option<String>,
}

/// A migration that is not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PendingMigration {
    /// Version: the time stamp in the name of the file.
    pub version: i64,
    /// Description from the name of the file.
    pub name: String,
    /// Whether older binaries can run after it.
    pub additive: bool,
    /// SHA-384 of the file, in hex.
    pub checksum: String,
}

/// Options of [`Store::migrate`].
#[derive(Debug, Clone)]
pub struct MigrateConfig {
    /// Instance that uses the database.
    pub instance: String,
    /// Version or image of the binary, a part of the plan's hash.
    pub binary: String,
    /// Hash of the only plan to apply; `None` applies any.
    pub expect_plan: Option<String>,
    /// Whether to apply migrations that are not additive.
    pub allow_destructive: bool,
    /// Whether to take over a database that another instance owns.
    pub take_over: bool,
    /// Roles that get their privileges afterwards.
    pub roles: GrantedRoles,
    /// Who migrates, for the audit log.
    pub act: Act,
}

struct Applied {
    version: i64,
    checksum: Vec<u8>,
    additive: bool,
}

impl Store {
    /// Version of the schema that this binary needs: its latest migration.
    pub fn schema_version() -> i64 {
        MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0)
    }

    /// Computes the plan without applying it.
    ///
    /// # Errors
    /// [`MigrateError::Checksum`], [`MigrateError::SchemaAhead`] or [`MigrateError::Store`].
    pub async fn plan_migration(&self, binary: &str) -> Result<MigrationPlan, MigrateError> {
        let mut connection = self.pool.acquire().await?;
        let (applied, instance) = read_ledger(&mut connection).await?;
        plan(&applied, instance, binary)
    }

    /// Applies the pending migrations, and grants roles their privileges; returns the plan that was applied.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn migrate(&self, config: &MigrateConfig) -> Result<MigrationPlan, MigrateError> {
        // The advisory lock needs a session.
        self.verify_sessions().await?;
        // Migrations may take longer than a request, and the connection keeps its settings, so it is not pooled.
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

    /// The instance that owns the database; empty before the first migration.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn instance(&self) -> Result<String, StoreError> {
        let (_, instance) = read_ledger(&mut *self.probe_connection().await?).await?;
        Ok(instance.unwrap_or_default())
    }

    /// Returns why this binary cannot run on the schema, or `None` if it can.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn schema_problem(&self) -> Result<Option<String>, StoreError> {
        let mut connection = self.probe_connection().await?;
        let (applied, instance) = read_ledger(&mut connection).await?;
        Ok(match plan(&applied, instance, "") {
            Ok(plan) if plan.pending.is_empty() => None,
            Ok(plan) => Some(format!("{} migrations are pending: run `pulse migrate`", plan.pending.len())),
            Err(error) => Some(error.to_string()),
        })
    }
}

/// Reads the applied migrations and the owner of the database; empty before the first migration.
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
            additive: is_additive(known.sql.as_str()),
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

/// Whether the first line says so. A checkout may have changed line ends to CRLF.
fn is_additive(sql: &str) -> bool {
    sql.lines().next() == Some("-- additive: yes")
}

async fn migrate_locked(connection: &mut PgConnection, config: &MigrateConfig) -> Result<MigrationPlan, MigrateError> {
    config.roles.check(connection).await?;
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
        // Safe: the text is a file of this repository, embedded at build time.
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
        audit(&mut transaction, &config.act).await?;
        transaction.commit().await?;
        tracing::info!(version = pending.version, name = pending.name, "migration applied");
    }
    sqlx::query_scalar!("SELECT ensure_month_partitions('events', 12) + ensure_month_partitions('task_history', 12)")
        .fetch_one(&mut *connection)
        .await?;
    config.roles.grant(connection).await?;
    Ok(plan)
}

/// Writes rows of the audit log for the applied migrations that have none. The first migrations get theirs from the one that
/// creates the log.
async fn audit(connection: &mut PgConnection, act: &Act) -> Result<(), sqlx::Error> {
    let exists = sqlx::query_scalar!(r#"SELECT to_regclass('audit_log') IS NOT NULL AS "exists!""#);
    if exists.fetch_one(&mut *connection).await? {
        sqlx::query!(
            "INSERT INTO audit_log (act, actor, via, reason, action, target, count)
             SELECT $1, $2, $3, $4, 'schema.migrate', format('%s %s', version, name), 1 FROM pulse_migrations
             WHERE format('%s %s', version, name) NOT IN (SELECT target FROM audit_log WHERE action = 'schema.migrate')
             ORDER BY version",
            act.id,
            act.actor,
            act.via.as_str(),
            act.reason,
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Interval at which a waiting role checks the schema.
const SCHEMA_POLL: Duration = Duration::from_secs(1);

impl Store {
    /// Waits until this binary can run on the schema. Logs each reason once.
    pub async fn wait_for_schema(&self) {
        let mut logged = String::new();
        loop {
            let reason = match self.schema_problem().await {
                Ok(None) => return,
                Ok(Some(problem)) => problem,
                Err(error) => error.to_string(),
            };
            if reason != logged {
                tracing::warn!(reason, "waiting for a schema that this version supports");
                logged = reason;
            }
            tokio::time::sleep(SCHEMA_POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migration_is_additive_only_if_its_first_line_says_so() {
        assert!(is_additive("-- additive: yes\nCREATE TABLE a ();\n"));
        assert!(is_additive("-- additive: yes\r\nCREATE TABLE a ();\r\n"));
        assert!(!is_additive("-- additive: no\nDROP TABLE a;\n"));
        assert!(!is_additive("-- additive: yes, and more\n"));
        assert!(!is_additive("\n-- additive: yes\n"));
        assert!(!is_additive(""));
    }
}
