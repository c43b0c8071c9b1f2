//! The commands of docs/troubleshooting.md, run as they are written, print what its tables say for each injected fault.

use std::time::Duration;

use anyhow::Context;
use pulse_tests::documented::{self, Shell};
use pulse_tests::{PgBouncer, Process, TestEnv, TlsServers, eventually, pulse_output, repository};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A section of the page: its command, and the readings of its table.
struct Section {
    command: String,
    readings: Vec<String>,
}

fn section(title: &str) -> anyhow::Result<Section> {
    let page = std::fs::read_to_string(repository().join("docs/troubleshooting.md"))?;
    let sections = page.split("\n## ");
    let section = sections.filter_map(|section| section.split_once('\n')).find(|(found, _)| *found == title);
    let (_, text) = section.with_context(|| format!("the page has no section {title}"))?;
    let command = documented::commands(text).into_iter().next().context("a command")?;
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    let readings = rows.filter_map(|row| row.split('`').nth(1).map(str::to_owned)).collect();
    Ok(Section { command, readings })
}

/// Runs the command of a section until it prints a reading of its table, for the admin port of `role` and the id of an event.
async fn shows(
    env: &TestEnv,
    title: &str,
    reading: &str,
    role: Option<&Process>,
    event_id: Option<&str>,
) -> anyhow::Result<()> {
    let Section { command, readings } = section(title)?;
    anyhow::ensure!(readings.iter().any(|known| known == reading), "{title} has no reading `{reading}`");
    let admin = role.map_or("http://127.0.0.1:9090", |role| &role.admin);
    let shell = Shell::new(env)?.replacing("http://127.0.0.1:9090", admin);
    let shell = shell.replacing("EVENT_ID", event_id.unwrap_or_default());
    let mut last = String::new();
    let shown = eventually(reading, TIMEOUT, async || {
        (_, last) = shell.run(&command).await?;
        Ok(last.contains(reading))
    })
    .await;
    shown.with_context(|| format!("`{command}` printed {last}"))
}

/// Posts an event and returns its id.
async fn post(api: &Process, name: &str) -> anyhow::Result<String> {
    let event = json!({ "event_name": name, "event_type": "t" });
    let answer = api.client("ada").post("/api/v1/events", &event).await?;
    anyhow::ensure!(answer.status == 202, "{}", answer.text);
    Ok(answer.json["event_id"].to_string())
}

#[test]
fn every_reading_of_the_page_has_a_fault() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(repository().join("docs/troubleshooting.md"))?;
    let tests = include_str!("troubleshooting.rs");
    for title in page.lines().filter_map(|line| line.strip_prefix("## ")) {
        let Ok(Section { command, readings }) = section(title) else { continue };
        assert!(!readings.is_empty(), "{title}: `{command}` has no readings");
        for reading in readings {
            let quoted = [format!("{reading:?}"), format!("r#\"{reading}\"#")];
            assert!(quoted.iter().any(|quoted| tests.contains(quoted)), "no test injects the fault of `{reading}`");
        }
    }
    Ok(())
}

const UNPROCESSED: &str = "Events are accepted and not processed";

#[tokio::test(flavor = "multi_thread")]
async fn command_says_why_an_event_is_not_processed() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let why = async |env: &TestEnv, id: &str, reading: &str| shows(env, UNPROCESSED, reading, None, Some(id)).await;
    let event = post(&api, "page_view").await?;
    why(&env, &event, "No worker runs").await?;
    let mut lock = env.db.begin().await?;
    sqlx::query("SELECT FROM tasks FOR UPDATE").execute(&mut *lock).await?;
    why(&env, &event, "A transaction has locked its row").await?;
    lock.rollback().await?;
    let (code, output) = pulse_output(&env, &["pause", "--because", "a test"]).await?;
    assert_eq!(code, 0, "{output}");
    why(&env, &event, "paused all claims").await?;
    let (code, output) = pulse_output(&env, &["resume"]).await?;
    assert_eq!(code, 0, "{output}");

    let worker = Process::start(&env, "worker", &["--concurrency", "1", "--retry-base", "600"]).await?;
    why(&env, &post(&api, "fail").await?, "It runs again at").await?;
    why(&env, &post(&api, "invalid").await?, "It is dead since").await?;
    let running = post(&api, "sleep:600000").await?;
    let waiting = post(&api, "page_view").await?;
    why(&env, &waiting, "All workers are busy").await?;
    env.kill_and_wipe_redis().await?;
    why(&env, &waiting, "Redis cannot be used").await?;
    worker.kill().await?;
    why(&env, &running, "is dead, and its lease lasts until").await
}

#[tokio::test(flavor = "multi_thread")]
async fn command_lists_failed_attempts_by_reason() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &["--task-timeout", "1", "--retry-base", "600"]).await?;
    for name in ["fail", "panic", "invalid", "sleep:600000"] {
        post(&api, name).await?;
    }
    for reason in ["error", "timeout", "panic", "invalid_payload"] {
        shows(&env, "Many attempts fail", reason, None, None).await?;
    }
    // As the scheduler records it after the last attempt; a worker that dies three times takes minutes.
    let crashed = "UPDATE dead_tasks SET errors = jsonb_set(errors, '{-1,reason}', '\"crash\"'), reason = 'crash'";
    sqlx::query(crashed).execute(&env.db).await?;
    shows(&env, "Many attempts fail", "crash", None, None).await
}

const UNAVAILABLE: &str = "Posts fail with 503 `unavailable`";

#[tokio::test(flavor = "multi_thread")]
async fn command_says_why_postgresql_cannot_be_used() -> anyhow::Result<()> {
    let empty = TestEnv::unmigrated().await?;
    shows(&empty, UNAVAILABLE, "schema = not ready", None, None).await?;
    let mut env = TestEnv::start().await?;
    let bouncer = PgBouncer::start(&env, "transaction").await?;
    let direct = std::mem::replace(&mut env.database_url, bouncer.url());
    shows(&env, UNAVAILABLE, "set pool_mode = session", None, None).await?;
    env.database_url = direct;
    env.crash_postgres().await?;
    shows(&env, UNAVAILABLE, "that PostgreSQL runs", None, None).await?;
    let mut servers = TlsServers::start().await?;
    servers.env.database_url = servers.database_url("localhost", "?sslmode=verify-full");
    shows(&servers.env, UNAVAILABLE, "not signed by a CA that is trusted", None, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn command_counts_posts_of_a_locked_user_and_of_an_overloaded_api() -> anyhow::Result<()> {
    const TITLE: &str = "Posts fail with 503 and another code";
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-in-flight", "1"]).await?;
    post(&api, "page_view").await?;
    let mut lock = env.db.begin().await?;
    sqlx::query("SELECT FROM users FOR UPDATE").execute(&mut *lock).await?;
    let event = json!({ "event_name": "a", "event_type": "t" });
    let client = api.client("ada");
    // One request waits for the lock meanwhile, and is then refused; the other one finds no place.
    let (first, second) = tokio::join!(client.post("/api/v1/events", &event), client.post("/api/v1/events", &event));
    assert_eq!((first?.status, second?.status), (503, 503));
    shows(&env, TITLE, r#"code="overloaded""#, Some(&api), None).await?;
    shows(&env, TITLE, r#"code="user_locked""#, Some(&api), None).await?;
    lock.rollback().await?;
    Ok(())
}

const DEGRADED: &str = "Tasks start late, or `/readyz` says that Redis is degraded";

#[tokio::test(flavor = "multi_thread")]
async fn command_says_why_redis_cannot_be_used() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let client = redis::Client::open(env.redis_url.as_str())?;
    let set = async |command: &str| {
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut words = command.split(' ');
        let mut request = redis::cmd(words.next().unwrap_or_default());
        for word in words {
            request.arg(word);
        }
        anyhow::Ok(request.query_async::<redis::Value>(&mut connection).await?)
    };
    for (fault, reading, end) in [
        ("CONFIG SET maxmemory 1kb", "Redis is full", "CONFIG SET maxmemory 0"),
        (
            "CONFIG SET maxmemory-policy allkeys-lru",
            "set maxmemory-policy noeviction",
            "CONFIG SET maxmemory-policy noeviction",
        ),
        ("REPLICAOF 127.0.0.1 1", "point the Redis URL at the primary", "REPLICAOF NO ONE"),
    ] {
        set(fault).await?;
        shows(&env, DEGRADED, reading, None, None).await?;
        set(end).await?;
    }
    set("ACL SETUSER limited on >secret ~other:* +@all").await?;
    let url = env.redis_url.clone();
    env.redis_url = format!("{url}?user=limited&pass=secret");
    shows(&env, DEGRADED, "the Redis user may not do this", None, None).await?;
    env.redis_url = url;
    env.kill_and_wipe_redis().await?;
    shows(&env, DEGRADED, "that Redis runs", None, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_show_a_missing_scheduler_a_blocked_worker_and_the_memory() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _leader = Process::start(&env, "scheduler", &[]).await?;
    let standby = Process::start(&env, "scheduler", &[]).await?;
    let worker = Process::start(&env, "worker", &["--task-timeout", "1"]).await?;
    shows(&env, "Retries and lost tasks wait", "pulse_scheduler_leader 0", Some(&standby), None).await?;
    for (reading, role) in [
        ("process_resident_memory_bytes", &api),
        ("http_server_active_requests", &api),
        ("pulse_worker_in_flight_tasks", &worker),
    ] {
        shows(&env, "Memory grows", reading, Some(role), None).await?;
    }
    post(&api, "spin").await?;
    shows(&env, "A worker is restarted, or does nothing", r#""status":"failed""#, Some(&worker), None).await
}
