//! The privileges of the serving role are exactly those that the statements of `pulse-store` need: PostgreSQL checks them
//! when it explains a statement.

use std::collections::BTreeSet;

use anyhow::Context;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{SERVING, connect, migrated, sqlstate};

/// Statements of `pulse migrate`, which the owner runs.
const OF_OWNER: [&str; 3] =
    ["INSERT INTO pulse_database", "INSERT INTO pulse_migrations", "SELECT ensure_month_partitions('events', 12) +"];

struct Statement {
    text: String,
    explain: String,
}

/// Prepares all statements.
async fn prepared(connection: &mut PgConnection) -> anyhow::Result<Vec<Statement>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../.sqlx");
    let mut statements = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let description: Value = serde_json::from_slice(&std::fs::read(file?.path())?)?;
        let text = description["query"].as_str().context("a statement")?.to_owned();
        if OF_OWNER.iter().any(|owned| text.starts_with(owned)) {
            continue;
        }
        let name = format!("statement_{}", statements.len());
        let parameters = description["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
        sqlx::raw_sql(AssertSqlSafe(format!("PREPARE {name} AS {text}"))).execute(&mut *connection).await?;
        let values = vec!["NULL"; parameters].join(", ");
        let values = if values.is_empty() { values } else { format!("({values})") };
        statements.push(Statement { explain: format!("EXPLAIN EXECUTE {name}{values}"), text });
    }
    Ok(statements)
}

/// The statements that lack a privilege after `revoke`, which is then undone.
async fn lacking(
    connection: &mut PgConnection,
    revoke: &str,
    statements: impl Iterator<Item = &Statement>,
) -> anyhow::Result<Option<String>> {
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql(AssertSqlSafe(revoke.to_owned())).execute(&mut *transaction).await?;
    sqlx::raw_sql(AssertSqlSafe(format!("SET LOCAL ROLE \"{SERVING}\""))).execute(&mut *transaction).await?;
    for statement in statements {
        let code = sqlstate(&mut transaction, &statement.explain).await?;
        if code == "42501" {
            return Ok(Some(statement.text.clone()));
        }
        anyhow::ensure!(code.is_empty(), "{code}: {}", statement.text);
    }
    Ok(None)
}

/// The privileges of the serving role on tables and columns, each with its table. PostgreSQL checks those on sequences
/// only when a statement runs.
const GRANTED: &str = "
    SELECT relname::text, format('%s ON %I', privilege_type, relname)
    FROM pg_class, aclexplode(relacl) WHERE grantee = $1::regrole AND relkind <> 'S'
    UNION ALL
    SELECT relname::text, format('%s (%I) ON %I', privilege_type, attname, relname)
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid, aclexplode(attacl) WHERE grantee = $1::regrole";

#[tokio::test(flavor = "multi_thread")]
async fn privileges_of_the_serving_role_are_those_that_the_statements_need() -> anyhow::Result<()> {
    let env = migrated().await?;
    let mut connection = connect(&env, "pulse").await?;
    let statements = prepared(&mut connection).await?;
    assert!(statements.len() > 100, "{}", statements.len());
    let denied = lacking(&mut connection, "SELECT", statements.iter()).await?;
    assert_eq!(denied, None, "a statement needs more privileges: add them in privileges.rs");
    let granted: Vec<(String, String)> =
        sqlx::query_as(GRANTED).bind(format!("\"{SERVING}\"")).fetch_all(&env.db).await?;
    for (table, privilege) in granted {
        let of_table = statements.iter().filter(|statement| statement.text.contains(&table));
        let needed = lacking(&mut connection, &format!("REVOKE {privilege} FROM \"{SERVING}\""), of_table).await?;
        assert!(needed.is_some(), "no statement needs {privilege}: remove it from privileges.rs");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_table_sequence_and_function_of_the_schema_has_its_privileges() -> anyhow::Result<()> {
    let env = migrated().await?;
    let without = "
        SELECT relname::text FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') AND NOT relispartition
          AND relname <> 'server_timeline' AND NOT has_table_privilege($1, oid, 'SELECT')
        UNION ALL
        SELECT proname::text FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND prorettype <> 'trigger'::regtype
          AND NOT EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = format('%I', $1)::regrole)";
    let without: Vec<String> = sqlx::query_scalar(without).bind(SERVING).fetch_all(&env.db).await?;
    assert_eq!(without, Vec::<String>::new(), "add a row in privileges.rs");
    let of_everybody = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
                        AND (has_function_privilege('public', oid, 'EXECUTE') OR proconfig IS NULL)";
    let of_everybody: Vec<String> = sqlx::query_scalar(of_everybody).fetch_all(&env.db).await?;
    assert_eq!(of_everybody, Vec::<String>::new(), "a function with the owner's rights needs REVOKE and a search path");
    let sequences: BTreeSet<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class, aclexplode(relacl) WHERE relkind = 'S' AND grantee = format('%I', $1)::regrole",
    )
    .bind(SERVING)
    .fetch_all(&env.db)
    .await?
    .into_iter()
    .collect();
    assert_eq!(sequences, BTreeSet::from(["events_id_seq".to_owned()]));
    Ok(())
}
