//! Export of a user.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use pulse_tests::user_data::{TABLES, insert_user};
use pulse_tests::{Process, TestEnv, pulse, pulse_output};
use sqlx::AssertSqlSafe;
use tokio::io::{AsyncBufReadExt, BufReader};

const TIMEOUT: Duration = Duration::from_secs(60);

/// The rows of a user in the database, as text, in order.
async fn stored(env: &TestEnv, table: &str, condition: &str) -> anyhow::Result<Vec<String>> {
    let rows = format!("SELECT row_to_json(t)::text FROM {table} AS t WHERE {condition}");
    let mut rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&env.db).await?;
    rows.sort();
    Ok(rows)
}

/// The rows of an export by table, as text, in order.
fn exported(lines: &str) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines.lines() {
        let parts = line.strip_prefix(r#"{"table":""#).and_then(|line| line.split_once(r#"","row":"#));
        let (table, row) = parts.with_context(|| line.to_owned())?;
        tables.entry(table.to_owned()).or_default().push(row.strip_suffix('}').context("an object")?.to_owned());
    }
    tables.values_mut().for_each(|rows| rows.sort());
    Ok(tables)
}

#[tokio::test(flavor = "multi_thread")]
async fn export_has_exactly_the_rows_of_the_user_as_they_are_stored() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &["--retry-base", "0.1"]).await?;
    let ada = api.client("ada");
    for name in ["page_view", "fail", "invalid"] {
        ada.post_event(name).await?;
    }
    env.wait_until_settled(Duration::from_secs(30)).await?;
    insert_user(&env, "eve", "other", 2000).await?;
    insert_user(&env, "max", "own", 5000).await?;
    // Small and large rows in turn, more digits than a double has, and the same times.
    sqlx::raw_sql(
        "INSERT INTO events (user_id, event_name, event_type, task_id, created_at, payload)
         SELECT users.id, 'large', 't', gen_random_uuid(), date_trunc('hour', now()) + n / 2 * interval '0.000001 s',
                jsonb_build_object('n', 0.1234567890123456789, 'text', repeat('\u{1F600} \\', CASE n % 50 WHEN 0 THEN 150000 ELSE 1 END))
         FROM users, generate_series(1, 1000) AS n WHERE subject IN ('max', 'eve');
         INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, settled_at)
         SELECT gen_random_uuid(), 'process_event', users.id, '{}', 'cancelled', 9,
                jsonb_build_array(repeat('e', 20000 + n)), now(), now() - interval '70 days'
         FROM users, generate_series(1, 500) AS n WHERE subject = 'max'",
    )
    .execute(&env.db)
    .await?;
    for user in ["ada", "max"] {
        let output = tokio::time::timeout(TIMEOUT, pulse(&env, &["user", "export", user]).output()).await??;
        let progress = String::from_utf8(output.stderr)?;
        assert!(output.status.success(), "{progress}");
        let tables = exported(&String::from_utf8(output.stdout)?)?;
        let id = format!("(SELECT id FROM users WHERE subject = '{user}')");
        let mut total = 1;
        assert_eq!(tables["users"], stored(&env, "users", &format!("subject = '{user}'")).await?);
        for table in TABLES {
            let rows = stored(&env, table, &format!("user_id = {id}")).await?;
            let found = tables.get(table).cloned().unwrap_or_default();
            assert_eq!(found.len(), rows.len(), "{table} of {user}");
            assert!(found == rows, "{table} of {user} differs");
            total += rows.len();
        }
        assert!(
            progress.trim_end().lines().last().is_some_and(|line| line.contains(&format!("{total} rows"))),
            "{progress}"
        );
    }
    let (code, output) = pulse_output(&env, &["user", "export", "gone"]).await?;
    assert!(code == 1 && output.contains("no user `gone`"), "{output}");
    Ok(())
}

/// Events of one megabyte.
const LARGE: usize = 150;
/// More than the program of a debug build needs, and less than the events have.
const MEMORY_KIB: u64 = 100 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn export_to_a_slow_reader_holds_no_transaction_and_little_memory() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let large = format!(
        "INSERT INTO users (subject) VALUES ('ada');
         INSERT INTO events (user_id, event_name, event_type, task_id, payload)
         SELECT 1, 'a', 't', gen_random_uuid(), jsonb_build_object('text', repeat('x', 1000000)) FROM generate_series(1, {LARGE})"
    );
    sqlx::raw_sql(AssertSqlSafe(large)).execute(&env.db).await?;
    let mut export = pulse(&env, &["user", "export", "ada"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(export.stdout.take().context("a pipe")?).lines();
    let status = format!("/proc/{}/status", export.id().context("it runs")?);
    let transactions =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pulse user' AND xact_start IS NOT NULL";
    let (mut number, mut peak) = (0, 0);
    while let Some(line) = lines.next_line().await? {
        number += 1;
        anyhow::ensure!(line.starts_with(r#"{"table":""#), "{line}");
        if number % 50 == 10 {
            // The pipe is full now.
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert_eq!(env.number(transactions).await?, 0);
            let status = std::fs::read_to_string(&status)?;
            let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
            peak = resident.trim().trim_end_matches(" kB").parse::<u64>()?;
        }
    }
    assert_eq!(number, 1 + LARGE);
    assert!(export.wait().await?.success());
    assert!(peak > 0 && peak < MEMORY_KIB, "the export used {peak} KiB");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn export_whose_reader_stops_ends_with_an_error_and_no_panic() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    insert_user(&env, "ada", "own", 10_000).await?;
    let mut export = pulse(&env, &["user", "export", "ada"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(export.stdout.take().context("a pipe")?).lines();
    assert!(lines.next_line().await?.is_some_and(|line| line.starts_with(r#"{"table":"users","row":{"id":1"#)));
    drop(lines);
    let output = tokio::time::timeout(TIMEOUT, export.wait_with_output()).await??;
    let error = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("the export is not complete") && !error.contains("panic"), "{error}");
    Ok(())
}
