//! A deep backlog: the roles keep within the memory of a container.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use std::time::Duration;

use anyhow::Context;
use pulse_tests::{MemoryCgroup, Process, TestEnv, cpu_seconds, eventually};

const LIMIT: u64 = 512 * 1024 * 1024;
const TASKS: i64 = if cfg!(feature = "long") { 1_000_000 } else { 20_000 };
const TIMEOUT: Duration = Duration::from_secs(if cfg!(feature = "long") { 3600 } else { 120 });

/// Stores pending tasks of one event each, as if Redis had been lost after they were accepted.
async fn store_tasks(env: &TestEnv) -> anyhow::Result<()> {
    let user = "INSERT INTO users (subject) VALUES ('ada')";
    let events = "INSERT INTO events (user_id, event_name, event_type, task_id, payload)
                  SELECT (SELECT id FROM users), 'a', 't', gen_random_uuid(), '{}' FROM generate_series(1, $1)";
    let tasks = "INSERT INTO tasks (id, kind, user_id, event_ids, bytes, created_at, max_attempts, enqueued_at)
                 SELECT task_id, 'process_event', user_id, ARRAY[id], 600, created_at, 3, NULL FROM events";
    sqlx::query(user).execute(&env.db).await?;
    sqlx::query(events).bind(TASKS).execute(&env.db).await?;
    sqlx::query(tasks).execute(&env.db).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn backlog_on_the_stream_is_drained_within_the_memory_of_a_container() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    store_tasks(&env).await?;
    let container = MemoryCgroup::new(LIMIT)?;
    let mut scheduler = Process::spawn_in(&container, &env, "scheduler", &[])?;
    let not_enqueued = "SELECT count(*) FROM tasks WHERE enqueued_at IS NULL";
    let enqueued = async || Ok(env.number(not_enqueued).await? == 0);
    eventually("every task is on the stream", TIMEOUT, enqueued).await?;
    let mut worker = Process::spawn_in(&container, &env, "worker", &[])?;
    env.wait_until_settled(TIMEOUT).await?;
    assert!(!scheduler.has_ended()? && !worker.has_ended()?, "a role was killed");
    let peak = container.peak()?;
    assert!(peak < LIMIT * 9 / 10, "worker and scheduler used {peak} bytes of {LIMIT}");
    let completed = "SELECT count(*) FROM task_history WHERE outcome = 'completed' AND attempts = 1";
    assert_eq!(env.number(completed).await?, TASKS);
    assert_eq!(env.number("SELECT count(*) FROM events WHERE NOT processed").await?, 0);
    Ok(())
}

/// Time for which the scheduler is watched, and the part of a core that it and its sessions may take: 5 % of a release, and
/// more of a debug build with a small backlog.
const WATCHED: Duration = Duration::from_secs(if cfg!(feature = "long") { 300 } else { 20 });
const SHARE: f64 = if cfg!(feature = "long") { 0.05 } else { 0.15 };

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_the_scheduler_take_a_small_part_of_a_core_however_large_the_backlog() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    store_tasks(&env).await?;
    let scheduler = Process::start(&env, "scheduler", &[]).await?;
    let not_enqueued = "SELECT count(*) FROM tasks WHERE enqueued_at IS NULL";
    let enqueued = async || Ok(env.number(not_enqueued).await? == 0);
    eventually("every task is on the stream", TIMEOUT, enqueued).await?;
    let used = async || {
        let sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pulse scheduler'";
        let sessions: Vec<i32> = sqlx::query_scalar(sessions).fetch_all(&env.db).await?;
        let mut seconds = cpu_seconds(scheduler.pid().context("it runs")?)?;
        for pid in sessions {
            seconds += cpu_seconds(pid.unsigned_abs())?;
        }
        anyhow::Ok(seconds)
    };
    // The first count and search are made.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = used().await?;
    tokio::time::sleep(WATCHED).await;
    let share = (used().await? - before) / WATCHED.as_secs_f64();
    println!("the scheduler took {:.1} % of a core with {TASKS} tasks", share * 100.0);
    assert!(share <= SHARE, "{:.1} % of a core", share * 100.0);
    let counted = env.number("SELECT pending::bigint FROM gauges").await?;
    assert_eq!(counted, TASKS, "the figures are right all the same");
    Ok(())
}
