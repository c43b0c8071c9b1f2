//! PostgreSQL is restored to an earlier moment, while Redis remembers more, and clients repeat their posts with their keys.

use std::collections::HashSet;
use std::time::Duration;

use http::Method;
use pulse_tests::{Backup, Client, Process, TestEnv, eventually, free_port, pulse_output};
use serde_json::{Value, json};
use sqlx::PgPool;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Posts before the moment to which PostgreSQL is restored, and after it.
const POSTS: usize = 200;

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

#[tokio::test(flavor = "multi_thread")]
async fn restored_postgresql_repeats_no_id_and_processes_what_clients_post_again_once() -> anyhow::Result<()> {
    let port = free_port()?;
    let with_archive = |config: pulse::datastores::PostgresConfig| {
        Backup::SETTINGS.iter().fold(config.with_port(port), |config, setting| config.with_setting(setting))
    };
    let mut env = TestEnv::with_servers(with_archive, |redis| redis.with_setting("appendonly", "yes")).await?;
    env.database_url = format!("postgres://pulse@127.0.0.1:{port}/pulse");
    let (code, output) = pulse_output(&env, &["migrate"]).await?;
    assert_eq!(code, 0, "{output}");
    let mut api = Process::start(&env, "api", &[]).await?;
    let mut worker = Process::start(&env, "worker", &[]).await?;
    let mut scheduler = Process::start(&env, "scheduler", &[]).await?;
    let backup = Backup::take(&env, port).await?;
    let kept = post(&api.client("ada"), "kept").await?;
    env.wait_until_settled(TIMEOUT).await?;
    assert!(lost_tasks(&env, 0).await?.is_empty());

    // The moment. What follows is known to the clients, and its tasks to Redis, because no worker takes them.
    sqlx::raw_sql("SELECT pg_create_restore_point('moment')").execute(&env.db).await?;
    worker.stop().await?;
    let lost = post(&api.client("ada"), "lost").await?;
    post(&api.client("grace"), "user").await?;
    sqlx::raw_sql("SELECT pg_switch_wal()").execute(&env.db).await?;
    let archived = "SELECT count(*) FROM pg_stat_archiver WHERE last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 16777216)";
    eventually("the log is archived", TIMEOUT, async || Ok(env.number(archived).await? == 1)).await?;
    let last_user = env.number("SELECT max(id) FROM users").await?;
    api.stop().await?;
    scheduler.stop().await?;
    env.crash_postgres().await?;

    let restored = backup.restore(port, "moment").await?;
    env.db = PgPool::connect(&restored.url("pulse")).await?;
    eventually("it takes writes", TIMEOUT, async || {
        Ok(env.number("SELECT pg_is_in_recovery()::int::bigint").await? == 0)
    })
    .await?;
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
