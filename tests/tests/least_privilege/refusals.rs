//! What the serving role and the read role may not do, and the roles that `pulse migrate` refuses.

use pulse_tests::pulse_output;

use super::{READ, SERVING, connect, execute, migrated, sqlstate, unmigrated, url_of};

const DENIED: &str = "42501";

#[tokio::test(flavor = "multi_thread")]
async fn serving_role_changes_no_schema_and_no_audit_log() -> anyhow::Result<()> {
    let env = migrated().await?;
    let mut serving = connect(&env, SERVING).await?;
    for denied in [
        "CREATE TABLE a ()",
        "CREATE SCHEMA a",
        "CREATE FUNCTION a() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP TABLE events",
        "DROP FUNCTION ensure_month_partitions",
        "ALTER TABLE events ADD COLUMN a int",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "TRUNCATE task_history",
        "UPDATE audit_log SET actor = 'x'",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log (act, actor, via, action, target, count, at)
         VALUES (gen_random_uuid(), 'ops', 'cli', 'resume', 'a', 0, now() - interval '1 day')",
        "INSERT INTO pulse_migrations (version, name, checksum, additive) VALUES (1, 'a', '', true)",
        "UPDATE pulse_database SET instance = 'other'",
        "UPDATE events SET payload = '{}'",
        "UPDATE users SET subject = 'other'",
        "UPDATE task_history SET outcome = 'completed'",
        "SET ROLE owner",
    ] {
        assert_eq!(sqlstate(&mut serving, denied).await?, DENIED, "{denied}");
    }
    // The function creates partitions of two tables, for two years at most.
    for (refused, code) in [
        ("SELECT ensure_month_partitions('users', 1)", "22023"),
        ("SELECT ensure_month_partitions(NULL, 1)", "22023"),
        ("SELECT ensure_month_partitions('events', 100000)", "22023"),
        ("CREATE TEMPORARY TABLE events (LIKE events); SELECT ensure_month_partitions('events', 13)", ""),
    ] {
        assert_eq!(sqlstate(&mut serving, refused).await?, code, "{refused}");
    }
    assert_eq!(env.number("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass").await?, 15);
    let mut reader = connect(&env, READ).await?;
    assert_eq!(sqlstate(&mut reader, "SELECT ensure_month_partitions('events', 1)").await?, DENIED);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn read_role_reads_no_contents_of_events_and_writes_nothing() -> anyhow::Result<()> {
    let env = migrated().await?;
    let hidden = "SELECT coalesce(string_agg(relname || '.' || attname, ' ' ORDER BY relname, attnum), '')
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
          AND attnum > 0 AND NOT attisdropped AND NOT has_column_privilege($1, attrelid, attnum, 'SELECT')
          AND relname <> 'idempotency_keys'";
    let hidden: String = sqlx::query_scalar(hidden).bind(READ).fetch_one(&env.db).await?;
    assert_eq!(
        hidden, "events.session_id events.payload events.properties events.ip_address events.user_agent",
        "a column that the read role has to see needs a row in privileges.rs"
    );
    let mut reader = connect(&env, READ).await?;
    for (allowed, code) in [
        ("SELECT count(*), max(event_name) FROM events", ""),
        ("SELECT * FROM tasks, dead_tasks, task_history, users, audit_log, throughput, workers", ""),
        ("SELECT task_state(lease_until, attempts) FROM tasks", ""),
        ("SELECT payload FROM events", DENIED),
        ("SELECT key FROM idempotency_keys", DENIED),
        ("INSERT INTO users (subject) VALUES ('eve')", DENIED),
        ("DELETE FROM tasks", DENIED),
        ("SELECT id FROM tasks FOR UPDATE", DENIED),
        ("SELECT nextval('events_id_seq')", DENIED),
        ("CREATE TABLE a ()", DENIED),
    ] {
        assert_eq!(sqlstate(&mut reader, allowed).await?, code, "{allowed}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_refuses_roles_that_do_not_exist_or_have_no_limits() -> anyhow::Result<()> {
    let env = unmigrated().await?;
    execute(&env, "CREATE ROLE heir LOGIN IN ROLE owner; CREATE ROLE maker LOGIN; CREATE ROLE good LOGIN").await?;
    execute(&env, "GRANT CREATE ON SCHEMA public TO maker").await?;
    for (serving, read, problem) in [
        (
            "gone",
            "good",
            "the role `gone` does not exist: an administrator of PostgreSQL runs CREATE ROLE \"gone\" LOGIN",
        ),
        ("good", "gone", "CREATE ROLE \"gone\" LOGIN"),
        ("owner", "good", "`owner` is a superuser, the role \"owner\" that migrates, or a member of it"),
        ("pulse", "good", "is a superuser"),
        ("heir", "good", "a member of it"),
        ("maker", "good", "REVOKE CREATE ON SCHEMA \"public\" FROM PUBLIC, \"maker\""),
        ("good", "good", "is the serving role and the read role"),
    ] {
        let (code, output) = pulse_output(&env, &["migrate", "--serving-role", serving, "--read-role", read]).await?;
        assert!(code == 1 && output.contains(problem), "{serving}, {read}: {output}");
    }
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')";
    assert_eq!(env.number(tables).await?, 0, "nothing is applied");
    // A role that was forgotten: the processes wait, and say what to do.
    assert_eq!(pulse_output(&env, &["migrate"]).await?.0, 0);
    let (code, output) = pulse_output(&env, &["user", "list", "--database-url", &url_of(&env, "good")]).await?;
    assert!(code != 0 && output.contains("--serving-role"), "{output}");
    Ok(())
}
