//! The archive: months are copied before they are dropped, and can be verified and restored.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use pulse_tests::latency::GOOD;
use pulse_tests::{Process, S3, TestEnv, eventually, load, pulse, python_with, report, run};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Number of events in a month of 2020.
const EVENTS: i64 = if cfg!(feature = "long") { 5_000_000 } else { 120_000 };
/// Events per second beside a copy, and for how long.
const RATE: u32 = 500;
const COPY_SECONDS: u32 = if cfg!(feature = "long") { 60 } else { 15 };
const KILLS: usize = if cfg!(feature = "long") { 20 } else { 10 };
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

/// What the month has, in any order.
async fn fingerprint(db: &PgPool, table: &str) -> anyhow::Result<(i64, Option<String>)> {
    let time = if table == "events" { "created_at" } else { "settled_at" };
    let query = format!(
        "SELECT count(*), sum(hashtextextended(row_to_json(stored)::text, 0))::text FROM {table} AS stored
         WHERE {time} >= '2020-01-01Z' AND {time} < '2020-02-01Z'"
    );
    Ok(sqlx::query_as(AssertSqlSafe(query)).fetch_one(db).await?)
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

#[tokio::test(flavor = "multi_thread")]
async fn month_is_copied_to_s3_dropped_verified_and_restored() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let s3 = S3::start(&env).await?;
    fill(&env.db, 250_000).await?;
    let before = [fingerprint(&env.db, "events").await?, fingerprint(&env.db, "task_history").await?];
    let args = [&RETAIN[..], &["--archive", &s3.url]].concat();
    let scheduler = Process::spawn_with_variables(&env, "scheduler", &s3.variables(), &args)?;
    scheduler.wait_until_ready().await?;
    wait_for_drop(&env).await?;
    assert_eq!(scheduler.metric("pulse_archived_rows").await? as i64, 275_000);
    assert!(scheduler.metric("pulse_archive_blocked").await?.abs() < 0.5);
    let audit = "SELECT count(*) FROM audit_log WHERE action = 'retention.archive'";
    assert_eq!(env.number(audit).await?, 2);
    scheduler.kill().await?;

    let archive = ["--archive", &s3.url];
    let (_, listed) = command(&env, &s3.variables(), &[&["archive", "list"][..], &archive].concat()).await?;
    assert!(listed.contains("events        2020-01  250000  3"), "{listed}");
    let (is_good, verified) = command(&env, &s3.variables(), &[&["archive", "verify"][..], &archive].concat()).await?;
    assert!(
        is_good && verified.contains("task_history 2020-01: 25000 rows in 1 files are as they were written"),
        "{verified}"
    );

    let counted = count_with_duckdb(&s3.folder.join("pulse/events/2020-01")).await?;
    assert_eq!(counted.trim(), "250000 250000 100 31250125000");

    for table in ["events", "task_history"] {
        let restore = [&["archive", "restore", table, "2020-01"][..], &archive].concat();
        let (is_restored, output) = command(&env, &s3.variables(), &restore).await?;
        assert!(is_restored, "{output}");
        let (_, again) = command(&env, &s3.variables(), &restore).await?;
        assert!(again.contains("restored 0 of"), "{again}");
    }
    let after = [fingerprint(&env.db, "events").await?, fingerprint(&env.db, "task_history").await?];
    assert_eq!(after, before, "each row is as it was");

    let (api, scheduler) = (Process::start(&env, "api", &[]).await?, Process::start(&env, "scheduler", &RETAIN).await?);
    let page = api.client("user 8").get("/api/v1/events?limit=100").await?;
    assert_eq!(page.json["events"].as_array().map(Vec::len), Some(100), "{page:?}");
    eventually("retention has run", TIMEOUT, async || {
        Ok(env.number("SELECT count(*) FROM jobs WHERE name = 'retain' AND last_outcome = 'succeeded'").await? == 1)
    })
    .await?;
    assert_eq!(env.number(OLD_MONTHS).await?, 2, "restored months are kept");
    drop(scheduler);
    Ok(())
}

/// Number of rows, of ids and of users, and the sum of a number in the payloads.
async fn count_with_duckdb(folder: &Path) -> anyhow::Result<String> {
    let python = python_with("duckdb", DUCKDB).await?;
    let query = format!(
        "SELECT count(*), count(DISTINCT id), count(DISTINCT subject), sum((payload ->> 'n')::bigint)
         FROM read_json('{}/*.jsonl.zst', columns = {{id: 'BIGINT', subject: 'VARCHAR', payload: 'JSON'}})",
        folder.display()
    );
    let program = "import duckdb, sys; print(*duckdb.sql(sys.argv[1]).fetchall()[0])";
    run(Command::new(python).args(["-c", program, &query])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_of_the_scheduler_at_any_point_loses_and_doubles_no_row() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db, EVENTS).await?;
    let expected = env.number("SELECT sum(id)::bigint FROM events WHERE created_at < '2021-01-01Z'").await?;
    let folder = env.file("archive");
    let url = format!("file://{}", folder.display());
    let args = [&RETAIN[..], &["--archive", &url]].concat();
    let mut delay = Duration::from_millis(150);
    for _ in 0..KILLS {
        let scheduler = Process::start(&env, "scheduler", &args).await?;
        tokio::time::sleep(delay).await;
        scheduler.kill().await?;
        sqlx::raw_sql("DELETE FROM leases; UPDATE jobs SET last_run_at = now() - interval '1 day'")
            .execute(&env.db)
            .await?;
        delay += Duration::from_millis(130);
    }
    let _scheduler = Process::start(&env, "scheduler", &args).await?;
    wait_for_drop(&env).await?;
    let months = count_with_duckdb(&folder.join("events/2020-01")).await?;
    assert_eq!(months.trim(), format!("{EVENTS} {EVENTS} 100 {expected}"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn month_that_changes_while_it_is_copied_is_copied_again() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db, 1000).await?;
    let url = format!("file://{}", env.file("archive").display());
    let args = [&RETAIN[..], &["--archive", &url]].concat();
    // The reader keeps the month from being dropped, and the copy from nothing.
    let mut reader = env.db.begin().await?;
    sqlx::query("SELECT FROM events LIMIT 1").execute(&mut *reader).await?;
    let _scheduler = Process::start(&env, "scheduler", &args).await?;
    let verified = "SELECT count(*) FROM archived_months WHERE verified_at IS NOT NULL AND NOT is_changed";
    eventually("the copy is verified", TIMEOUT, async || Ok(env.number(verified).await? >= 1)).await?;
    sqlx::query("DELETE FROM events WHERE user_id = 7 AND created_at < '2021-01-01Z'").execute(&env.db).await?;
    assert_eq!(env.number("SELECT count(*) FROM archived_months WHERE is_changed").await?, 1);
    reader.rollback().await?;
    wait_for_drop(&env).await?;
    let counted = count_with_duckdb(&env.file("archive").join("events/2020-01")).await?;
    assert_eq!(counted.trim(), "990 990 99 495940", "neither the rows of the user nor old files are left");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn export_and_erasure_of_a_user_reach_the_archive() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let s3 = S3::start(&env).await?;
    fill(&env.db, 1000).await?;
    sqlx::query("INSERT INTO events (user_id, event_name, event_type, task_id) VALUES (7, 'new', 't', gen_random_uuid())")
        .execute(&env.db)
        .await?;
    let args = [&RETAIN[..], &["--archive", &s3.url]].concat();
    let scheduler = Process::spawn_with_variables(&env, "scheduler", &s3.variables(), &args)?;
    wait_for_drop(&env).await?;
    scheduler.kill().await?;
    let left_over = s3.folder.join("pulse/events/2020-01/left-over.jsonl.zst");
    std::fs::write(&left_over, "of an interrupted copy")?;

    let (is_done, output) = command(&env, &[], &["user", "erase", "user 7", "--yes"]).await?;
    assert!(!is_done && output.contains("give the URL with --archive"), "{output}");
    let archive = ["--archive", &s3.url];
    let (is_done, output) = command(&env, &s3.variables(), &[&["user", "export", "user 7"][..], &archive].concat()).await?;
    let archived = output.lines().filter(|line| line.starts_with(r#"{"table":"events","archived":true"#)).count();
    assert!(is_done && archived == 10 && output.contains(r#""event_name":"new""#), "{output}");

    let erase = [&["user", "erase", "user 7", "--yes", "--json"][..], &archive].concat();
    let (is_done, output) = command(&env, &s3.variables(), &erase).await?;
    assert!(is_done && output.contains(r#""archive":{"rows":10,"files":1}"#), "{output}");
    let counted = count_with_duckdb(&s3.folder.join("pulse/events/2020-01")).await?;
    assert_eq!(counted.trim(), "990 990 99 495940");
    assert!(!left_over.exists(), "files that no manifest names are deleted");
    let (is_good, output) = command(&env, &s3.variables(), &[&["archive", "verify"][..], &archive].concat()).await?;
    assert!(is_good, "{output}");
    let (_, output) = command(&env, &s3.variables(), &[&["user", "export", "user 8"][..], &archive].concat()).await?;
    assert!(output.contains("archive 10") || output.contains("archive 20"), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_missing_files_are_found_and_a_foreign_folder_is_refused() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db, 1000).await?;
    let folder = env.file("archive");
    let url = format!("file://{}", folder.display());
    let args = [&RETAIN[..], &["--archive", &url]].concat();
    let scheduler = Process::start(&env, "scheduler", &args).await?;
    wait_for_drop(&env).await?;
    scheduler.kill().await?;
    let mut files: Vec<_> = std::fs::read_dir(folder.join("events/2020-01"))?.collect::<Result<_, _>>()?;
    files.retain(|file| file.path().extension().is_some_and(|extension| extension == "zst"));
    let file = files[0].path();
    let content = std::fs::read(&file)?;
    let mut damaged = content.clone();
    damaged[content.len() / 2] ^= 1;
    std::fs::write(&file, &damaged)?;
    let verify = ["archive", "verify", "--archive", &url];
    let (is_good, output) = command(&env, &[], &verify).await?;
    assert!(!is_good && output.contains("is damaged: its checksum is"), "{output}");
    let restore = ["archive", "restore", "events", "2020-01", "--archive", &url];
    let (is_restored, output) = command(&env, &[], &restore).await?;
    assert!(!is_restored && output.contains("is damaged"), "{output}");
    std::fs::remove_file(&file)?;
    let (is_good, output) = command(&env, &[], &verify).await?;
    assert!(!is_good && output.contains("is damaged: it is missing"), "{output}");
    let (is_found, output) =
        command(&env, &[], &["archive", "restore", "events", "2019-01", "--archive", &url]).await?;
    assert!(!is_found && output.contains("the archive has no events of 2019-01"), "{output}");

    let other = TestEnv::start().await?;
    fill(&other.db, 10).await?;
    let args = [&args[..], &["--instance", "other/one"]].concat();
    let scheduler = Process::start(&other, "scheduler", &args).await?;
    let blocked = async || Ok(scheduler.metric(r#"pulse_archive_blocked{table="events"}"#).await? > 0.5);
    eventually("the archive of another instance is refused", TIMEOUT, blocked).await?;
    let log = std::fs::read_to_string(&scheduler.log)?;
    assert!(log.contains("give each instance another prefix"), "{log}");
    assert_eq!(other.number(OLD_MONTHS).await?, 2, "nothing is dropped");
    Ok(())
}

async fn p99_of(posting: tokio::process::Child) -> anyhow::Result<f64> {
    report(posting).await?["p99_ms"].as_f64().context("p99")
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_beside_a_reader_and_500_events_per_second_slows_no_post() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    fill(&env.db, EVENTS).await?;
    let url = format!("file://{}", env.file("archive").display());
    let args = [&RETAIN[..], &["--archive", &url]].concat();
    let api = Process::start(&env, "api", &[]).await?;
    let before = p99_of(load(&env, &api, RATE, 8)?).await?;
    let mut reader = env.db.begin().await?;
    sqlx::raw_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut *reader).await?;
    sqlx::query("SELECT FROM events LIMIT 1").execute(&mut *reader).await?;
    let _scheduler = Process::start(&env, "scheduler", &args).await?;
    let during = p99_of(load(&env, &api, RATE, COPY_SECONDS)?).await?;
    let verified =
        "SELECT count(*) FROM archived_months WHERE partition = 'events_y2020m01' AND verified_at IS NOT NULL";
    eventually("the copy is verified", TIMEOUT * 10, async || Ok(env.number(verified).await? == 1)).await?;
    reader.rollback().await?;
    let ended = std::time::Instant::now();
    wait_for_drop(&env).await?;
    let dropped = ended.elapsed();
    println!(
        "{EVENTS} events: POST p99 {before} ms, {during} ms beside the copy; dropped {dropped:?} after the reader"
    );
    assert!(
        during <= (before + 20.0).max(GOOD.as_secs_f64() * 1e3),
        "p99 {during} ms beside the copy, {before} ms before"
    );
    assert!(dropped <= Duration::from_secs(30));
    Ok(())
}
