//! PostgreSQL is restored to an earlier moment, while Redis remembers more, and clients repeat their posts with their keys.

use std::collections::HashSet;
use std::time::Duration;

use http::Method;
use pulse::datastores::{Postgres, PostgresConfig};
use pulse_tests::{Backup, Client, Process, TestEnv, eventually, free_port, pulse_output};
use serde_json::{Value, json};
use sqlx::PgPool;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Posts before the moment to which PostgreSQL is restored, and after it.
const POSTS: usize = 200;

/// By so much ids continue higher, at least.
const STEP: i64 = 1_000_000_000;

/// An answer to a post: the ids of the event and of its task.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Accepted {
    event: i64,
    task: String,
}

/// Posts events with the keys `prefix`-0 to `prefix`-199.
async fn post(client: &Client, prefix: &str) -> anyhow::Result<Vec<Accepted>> {
    let mut accepted = Vec::new();
    for number in 0..POSTS {
        let key = format!("\"{prefix}-{number}\"");
        let event = json!({ "event_name": prefix, "event_type": "t" }).to_string();
        let answer = client.send(Method::POST, "/api/v1/events", &[("idempotency-key", &key)], event.into()).await?;
        anyhow::ensure!(answer.status == 202, "{key}: {}", answer.text);
        let task = answer.json["task_id"].as_str().unwrap_or_default().to_owned();
        accepted.push(Accepted { event: answer.json["event_id"].as_i64().unwrap_or_default(), task });
    }
    Ok(accepted)
}

/// The tasks that `pulse check --restore` names.
async fn lost_tasks(env: &TestEnv, expected_code: i32) -> anyhow::Result<HashSet<String>> {
    let (code, output) = pulse_output(env, &["check", "--restore", "--json"]).await?;
    anyhow::ensure!(code == expected_code, "exit code {code}: {output}");
    let found: Value = serde_json::from_str(output.lines().next().unwrap_or_default())?;
    let tasks = found["lost_tasks"].as_array().into_iter().flatten();
    Ok(tasks.filter_map(Value::as_str).map(str::to_owned).collect())
}

/// A migrated PostgreSQL that listens on a port and archives its log, and the port.
async fn archiving() -> anyhow::Result<(TestEnv, u16)> {
    let port = free_port()?;
    let with_archive = |config: PostgresConfig| {
        Backup::SETTINGS.iter().fold(config.with_port(port), |config, setting| config.with_setting(setting))
    };
    let mut env = TestEnv::with_servers(with_archive, |redis| redis.with_setting("appendonly", "yes")).await?;
    env.database_url = format!("postgres://pulse@127.0.0.1:{port}/pulse");
    env.migrate().await?;
    Ok((env, port))
}

/// Creates the restore point, after which more is written.
async fn moment(env: &TestEnv) -> anyhow::Result<()> {
    sqlx::raw_sql("SELECT pg_create_restore_point('moment')").execute(&env.db).await.map(drop)?;
    Ok(())
}

/// Ends the PostgreSQL that was backed up, when its log is archived.
async fn lose(env: &mut TestEnv) -> anyhow::Result<()> {
    let last: String = sqlx::query_scalar("SELECT pg_walfile_name(pg_switch_wal())").fetch_one(&env.db).await?;
    let is_archived = async || Ok(env.file("wal").join(&last).is_file());
    eventually("the log is archived", TIMEOUT, is_archived).await?;
    env.crash_postgres().await
}

/// Starts the backup as of the moment, and waits until it takes writes.
async fn restore(env: &mut TestEnv, backup: &Backup, port: u16, folder: &str) -> anyhow::Result<Postgres> {
    let restored = backup.restore(env.file(folder), port, "moment").await?;
    env.db = PgPool::connect(&restored.url("pulse")).await?;
    let takes_writes = async || Ok(env.number("SELECT pg_is_in_recovery()::int::bigint").await? == 0);
    eventually("it takes writes", TIMEOUT, takes_writes).await?;
    Ok(restored)
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_postgresql_repeats_no_id_and_processes_what_clients_post_again_once() -> anyhow::Result<()> {
    let (mut env, port) = archiving().await?;
    let mut api = Process::start(&env, "api", &[]).await?;
    let mut worker = Process::start(&env, "worker", &[]).await?;
    let mut scheduler = Process::start(&env, "scheduler", &[]).await?;
    let backup = Backup::take(&env, port).await?;
    let kept = post(&api.client("ada"), "kept").await?;
    env.wait_until_settled(TIMEOUT).await?;
    assert!(lost_tasks(&env, 0).await?.is_empty());

    // The moment. What follows is known to the clients, and its tasks to Redis, because no worker takes them.
    moment(&env).await?;
    worker.stop().await?;
    let lost = post(&api.client("ada"), "lost").await?;
    post(&api.client("grace"), "user").await?;
    let last_user = env.number("SELECT max(id) FROM users").await?;
    api.stop().await?;
    scheduler.stop().await?;
    lose(&mut env).await?;

    let _restored = restore(&mut env, &backup, port, "restored").await?;
    assert_eq!(env.number("SELECT count(*) FROM events").await?, POSTS as i64);
    let named = lost_tasks(&env, 25).await?;
    assert_eq!(named.len(), 2 * POSTS);
    assert!(lost.iter().all(|accepted| named.contains(&accepted.task)));

    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    let client = api.client("ada");
    assert_eq!(post(&client, "kept").await?, kept, "the keys of kept events are known");
    let again = post(&client, "lost").await?;
    assert_eq!(post(&client, "lost").await?, again);
    let newest = lost.iter().map(|accepted| accepted.event).max().unwrap_or_default();
    assert!(again.iter().all(|accepted| accepted.event > newest), "{newest} {again:?}");
    api.client("another").post_event("a").await?;
    assert!(env.number("SELECT max(id) FROM users").await? > last_user);

    env.wait_until_settled(TIMEOUT).await?;
    eventually("Redis forgets the lost tasks", TIMEOUT, async || Ok(lost_tasks(&env, 0).await?.is_empty())).await?;
    let processed = "SELECT count(*) FROM events WHERE processed";
    assert_eq!(env.number(processed).await?, 2 * POSTS as i64 + 1);
    let settled = "SELECT count(*) - count(DISTINCT id) FROM task_history";
    assert_eq!(env.number(settled).await?, 0, "no task is settled twice");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_that_is_restored_twice_repeats_no_id_of_the_time_between() -> anyhow::Result<()> {
    let (mut env, port) = archiving().await?;
    let backup = Backup::take(&env, port).await?;
    moment(&env).await?;
    lose(&mut env).await?;
    let mut last = (0, 0);
    for folder in ["restored", "restored-again"] {
        let restored = restore(&mut env, &backup, port, folder).await?;
        let mut api = Process::start(&env, "api", &[]).await?;
        for user in ["ada", "grace"] {
            api.client(user).post_event("a").await?;
            let given =
                (env.number("SELECT max(id) FROM events").await?, env.number("SELECT max(id) FROM users").await?);
            assert!(given.0 > last.0 && given.1 > last.1, "{folder}: {last:?} {given:?}");
            last = given;
        }
        // As for a snapshot of a volume, of which PostgreSQL does not know.
        sqlx::raw_sql("UPDATE server_timeline SET server = ''").execute(&env.db).await?;
        api.stop().await?;
        let mut api = Process::start(&env, "api", &[]).await?;
        api.client("ada").post_event("a").await?;
        assert!(env.number("SELECT max(id) FROM events").await? > last.0 + STEP, "{last:?}");
        api.stop().await?;
        restored.stop_immediate().await?;
    }
    Ok(())
}
