//! The archive: months are copied before they are dropped, and can be verified and restored.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

mod copies;
mod files;
mod users;

use std::path::Path;
use std::time::Duration;

use pulse_tests::{TestEnv, eventually, pulse, python_with, run};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(60);
const RETAIN: [&str; 4] = ["--retain-events", "90d", "--retain-history", "90d"];
const OLD_MONTHS: &str = "SELECT count(*) FROM pg_class WHERE relname ~ '_y2020m0[0-9]$'";
const DUCKDB: &str = "2.0.1";

/// Months of 2020: one of events of a hundred users, and one of their settled tasks. The payloads have what JSON has.
async fn fill(db: &PgPool, events: i64) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(format!(
        r#"CREATE TABLE events_y2020m01 PARTITION OF events FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z');
           CREATE TABLE task_history_y2020m01 PARTITION OF task_history
           FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z');
           INSERT INTO users (subject) SELECT 'user ' || n FROM generate_series(1, 100) AS n;
           INSERT INTO events (user_id, event_name, event_type, source, payload, properties, task_id, processed, created_at)
           SELECT 1 + n % 100, 'name ' || n % 50, 'type', CASE WHEN n % 3 = 0 THEN 'web "é" \ 🦀' END,
                  jsonb_build_object('n', n, 'pi', 3.14159265358979323846, 'text', E'line\nend', 'none', NULL),
                  '{{"seen": true}}', gen_random_uuid(), true, '2020-01-01Z'::timestamptz + n * interval '0.4 second'
           FROM generate_series(1, {events}) AS n;
           INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, settled_at)
           SELECT task_id, 'process_event', user_id, ARRAY[id], 'completed', 1, '[]', created_at, created_at + interval '1 s'
           FROM events WHERE id % 10 = 0"#
    )))
    .execute(db)
    .await?;
    Ok(())
}

async fn command(env: &TestEnv, variables: &[(&str, String)], args: &[&str]) -> anyhow::Result<(bool, String)> {
    let mut command = pulse(env, args);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let output = tokio::time::timeout(Duration::from_secs(300), command.output()).await??;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

async fn wait_for_drop(env: &TestEnv) -> anyhow::Result<()> {
    eventually("the old months are dropped", TIMEOUT * 10, async || Ok(env.number(OLD_MONTHS).await? == 0)).await
}

/// Number of rows, of ids and of users, and the sum of a number in the payloads.
async fn count_with_duckdb(folder: &Path) -> anyhow::Result<String> {
    let python = python_with("duckdb", DUCKDB).await?;
    let query = format!(
        "SELECT count(*), count(DISTINCT id), count(DISTINCT subject), sum((payload ->> 'n')::bigint)
         FROM read_json('{}/*.jsonl.zst', columns = {{id: 'BIGINT', subject: 'VARCHAR', payload: 'JSON'}})",
        folder.display()
    );
    let program = "import duckdb, sys; duckdb.sql('SET enable_progress_bar = false'); print(*duckdb.sql(sys.argv[1]).fetchall()[0])";
    run(Command::new(python).args(["-c", program, &query])).await
}
