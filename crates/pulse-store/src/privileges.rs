//! What the roles of PostgreSQL may do, besides the one that migrates and owns everything. `pulse migrate` grants it after
//! the migrations. A new table or function needs a row here, and a statement that needs more needs it in the row; a test
//! compares both with the schema and with all statements.

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::error::StoreError;
use crate::migrate_error::MigrateError;

/// Roles of PostgreSQL that [`Store::migrate`](crate::Store::migrate) grants privileges; they have to exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrantedRoles {
    /// Role of API, worker, scheduler, console and the commands of administrators; `None`: they use the role that migrates.
    pub serving: Option<String>,
    /// Role of people and reports that only read.
    pub read: Option<String>,
}

/// A table with the privileges of the serving role and of the read role, as in a GRANT. `UPDATE` of a column is also what
/// locking a row needs.
struct Table {
    name: &'static str,
    serving: &'static str,
    read: &'static str,
}

/// The read role sees how events and tasks fare, and not what clients sent, which are the data of their customers: no
/// payload, properties, address, agent, session or Idempotency-Key.
const TABLES: &[Table] = &[
    Table {
        name: "users",
        serving: "SELECT, INSERT, UPDATE (disabled_at, held_at, limits, limits_changed_at), DELETE",
        read: "SELECT",
    },
    Table {
        name: "events",
        serving: "SELECT, INSERT, UPDATE (properties, processed, processed_at, processing_error), DELETE",
        read: "SELECT (id, user_id, event_name, event_type, source, event_timestamp, created_at, processed, \
               processed_at, processing_error, task_id)",
    },
    // The gauge of its rows. All else reaches partitions through `events`.
    Table { name: "events_default", serving: "SELECT", read: "" },
    Table {
        name: "tasks",
        serving: "SELECT, INSERT, DELETE, UPDATE (attempts, run_at, enqueued_at, started_at, fencing_token, lease_until, \
                  worker, crashed, errors)",
        read: "SELECT",
    },
    Table { name: "task_history", serving: "SELECT, INSERT, DELETE", read: "SELECT" },
    // The generated column cannot be set: only row locks need it.
    Table { name: "dead_tasks", serving: "SELECT, INSERT, UPDATE (error_group), DELETE", read: "SELECT" },
    Table {
        name: "idempotency_keys",
        serving: "SELECT, INSERT, UPDATE (fingerprint, task_id, event_ids, replay, created_at), DELETE",
        read: "",
    },
    Table { name: "leases", serving: "SELECT, INSERT, UPDATE (holder, term, expires_at)", read: "SELECT" },
    Table {
        name: "jobs",
        serving: "SELECT, INSERT, UPDATE (last_run_at, next_run_at, last_duration_ms, last_outcome)",
        read: "SELECT",
    },
    Table { name: "api_processes", serving: "SELECT, INSERT, UPDATE (seen_at), DELETE", read: "SELECT" },
    Table {
        name: "throughput",
        serving: "SELECT, INSERT, DELETE, UPDATE (accepted, accepted_events, completed, completed_events, failed, retried, \
                  dead, refused, requeued, backlog, attempt_us, attempt_times, completion_times)",
        read: "SELECT",
    },
    Table {
        name: "gauges",
        serving: "SELECT, INSERT, UPDATE (measured_at, pending, running, retrying, due, due_not_enqueued, delayed, dead, \
                  oldest_age_seconds, undelivered, in_flight, due_from)",
        read: "SELECT",
    },
    Table {
        name: "workers",
        serving: "SELECT, INSERT, DELETE, UPDATE (seen_at, state, concurrency, running, in_flight, last_claim_at, \
                  longest_task, longest_since)",
        read: "SELECT",
    },
    Table { name: "pause", serving: "SELECT, INSERT, DELETE", read: "SELECT" },
    // Append-only, also without its trigger, and PostgreSQL's clock says when.
    Table {
        name: "audit_log",
        serving: "SELECT, INSERT (act, actor, via, action, target, reason, count, outcome)",
        read: "SELECT",
    },
    Table {
        name: "running_acts",
        serving: "SELECT, INSERT, UPDATE (seen_at, moved, busy, is_stopping), DELETE",
        read: "SELECT",
    },
    Table { name: "archived_months", serving: "SELECT, UPDATE (is_changed, verified_at)", read: "SELECT" },
    Table { name: "archived_files", serving: "SELECT, INSERT", read: "SELECT" },
    Table { name: "token_keys", serving: "SELECT, INSERT, UPDATE (seen_at), DELETE", read: "SELECT" },
    // Only `skip_lost_ids` uses it, with the rights of the owner.
    Table { name: "server_timeline", serving: "", read: "SELECT" },
    Table { name: "pulse_migrations", serving: "SELECT", read: "SELECT" },
    Table { name: "pulse_database", serving: "SELECT", read: "SELECT" },
];

/// Sequences that statements name. The identity of a table needs no privilege.
const SEQUENCES: &[&str] = &["events_id_seq"];

/// Functions that the serving role executes, apart from those of triggers, which need no privilege. The read role may
/// execute what PostgreSQL grants PUBLIC, which is each of them that changes nothing.
const FUNCTIONS: &[&str] = &[
    "ensure_month_partitions(text, int)",
    "old_month_partitions(text, interval)",
    "begin_month_copy(text, interval)",
    "drop_month_partition(text, interval, boolean)",
    "restore_month_partition(text, date, interval, bigint)",
    "events_by_id(bigint[])",
    "skip_lost_ids()",
    "server_with_timeline()",
    "settled_tasks_by_id(uuid[])",
    "task_state(timestamptz, int)",
    "trace_id(text)",
    "error_group(text)",
    "histogram(float8[])",
    "add_histograms(bigint[], bigint[])",
    "sum_histograms(bigint[])",
];

impl GrantedRoles {
    fn names(&self) -> impl Iterator<Item = &String> {
        self.serving.iter().chain(&self.read)
    }

    /// Refuses roles that do not exist, or that privileges do not limit.
    pub(crate) async fn check(&self, connection: &mut PgConnection) -> Result<(), MigrateError> {
        if self.serving.is_some() && self.serving == self.read {
            let role = self.serving.clone().unwrap_or_default();
            return Err(MigrateError::Role { role, problem: "is the serving role and the read role".into() });
        }
        for role in self.names() {
            let found = sqlx::query!(
                r#"SELECT pg_has_role(oid, current_user, 'MEMBER') AS "is_owner!", current_user::text AS "owner!",
                          has_schema_privilege(oid, current_schema(), 'CREATE') AS "can_create!",
                          current_schema()::text AS "schema!"
                   FROM pg_roles WHERE rolname::text = $1"#,
                role,
            )
            .fetch_optional(&mut *connection)
            .await?;
            let name = quoted(role);
            let problem = match found {
                None => {
                    format!("does not exist: an administrator of PostgreSQL runs CREATE ROLE {name} LOGIN PASSWORD '…'")
                }
                Some(found) if found.is_owner => format!(
                    "is a superuser, the role {} that migrates, or a member of it, so that no privilege limits it: use \
                     another role",
                    quoted(&found.owner),
                ),
                Some(found) if found.can_create => format!(
                    "can create tables: the owner of the schema runs REVOKE CREATE ON SCHEMA {} FROM PUBLIC, {name}",
                    quoted(&found.schema),
                ),
                Some(_) => continue,
            };
            return Err(MigrateError::Role { role: role.clone(), problem });
        }
        Ok(())
    }

    /// Gives each role what it needs, and takes away what it needed with an earlier version.
    pub(crate) async fn grant(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if self.names().next().is_none() {
            return Ok(());
        }
        let schema: String =
            sqlx::query_scalar!(r#"SELECT current_schema()::text AS "schema!""#).fetch_one(&mut *connection).await?;
        // In one transaction, so that running processes always have what they need.
        let mut transaction = connection.begin().await?;
        for statement in self.statements(&schema) {
            // Safe: names of roles and of the schema are quoted, and the rest are constants.
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        for role in self.names() {
            tracing::info!(role, "privileges granted");
        }
        Ok(())
    }

    fn statements(&self, schema: &str) -> Vec<String> {
        let mut statements = Vec::new();
        let all_tables = TABLES.iter().map(|table| table.name).collect::<Vec<_>>().join(", ");
        for role in self.names() {
            let role = quoted(role);
            statements.push(format!("GRANT USAGE ON SCHEMA {} TO {role}", quoted(schema)));
            statements.push(format!("REVOKE ALL ON {all_tables} FROM {role}"));
        }
        if let Some(role) = self.serving.as_deref().map(quoted) {
            let served = TABLES.iter().filter(|table| !table.serving.is_empty());
            statements.extend(served.map(|table| format!("GRANT {} ON {} TO {role}", table.serving, table.name)));
            statements.push(format!("GRANT USAGE ON SEQUENCE {} TO {role}", SEQUENCES.join(", ")));
            statements.push(format!("GRANT EXECUTE ON FUNCTION {} TO {role}", FUNCTIONS.join(", ")));
        }
        if let Some(role) = self.read.as_deref().map(quoted) {
            let readable = TABLES.iter().filter(|table| !table.read.is_empty());
            statements.extend(readable.map(|table| format!("GRANT {} ON {} TO {role}", table.read, table.name)));
        }
        statements
    }
}

/// A name as an SQL identifier.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
