//! Redis that does not answer, is full, or has lost an entry.

use std::time::Instant;

use pulse_queue::{Queue, QueueConfig};
use pulse_tests::{Process, TestEnv, eventually};
use redis::streams::StreamRangeReply;
use rustix::process::Signal;

use crate::env::{TIMEOUT, has_completed_some, names, names_both, trickle, why};

/// Posts events until `pulse why` meets one that no worker has claimed yet: a worker searches PostgreSQL soon. Returns the
/// cause.
async fn cause_of_an_unclaimed(env: &TestEnv, api: &Process) -> anyhow::Result<String> {
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        let task = api.client("ada").post_event("a").await?;
        let answer = why(env, &task).await?;
        if answer["task"]["state"] == "pending" {
            return Ok(answer["explanation"]["cause"].as_str().unwrap_or_default().to_owned());
        }
        env.wait_until_settled(TIMEOUT).await?;
    }
    anyhow::bail!("the worker claims every task at once")
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_does_not_answer_is_named() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    api.client("ada").post_event("a").await?;
    env.wait_until_settled(TIMEOUT).await?;
    env.signal_redis(Signal::STOP)?;
    assert_eq!(cause_of_an_unclaimed(&env, &api).await?, "redis_away");
    env.signal_redis(Signal::CONT)
}

#[tokio::test(flavor = "multi_thread")]
async fn full_redis_is_named() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    api.client("ada").post_event("a").await?;
    env.wait_until_settled(TIMEOUT).await?;
    let mut connection = redis::Client::open(env.redis_url.as_str())?.get_multiplexed_async_connection().await?;
    let fill = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1kb").clone();
    fill.query_async::<()>(&mut connection).await?;
    assert_eq!(cause_of_an_unclaimed(&env, &api).await?, "redis_full");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_entry_is_named_and_needs_a_scheduler() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    // The first read of a worker then finds entries, and it does not search PostgreSQL.
    let config = QueueConfig { url: env.redis_url.clone(), ca: None, identity: None, instance: "dev".into() };
    Queue::connect_lazy(&config)?.ensure_groups().await?;
    let task = api.client("ada").post_event("a").await?;
    let mut connection = redis::Client::open(env.redis_url.as_str())?.get_multiplexed_async_connection().await?;
    eventually("the entry is lost", TIMEOUT, async || {
        let stream = "pulse:{dev}:tasks";
        let entries: StreamRangeReply =
            redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query_async(&mut connection).await?;
        for entry in &entries.ids {
            redis::cmd("XDEL").arg(stream).arg(&entry.id).query_async::<()>(&mut connection).await?;
        }
        Ok(!entries.ids.is_empty())
    })
    .await?;
    trickle(&api, "bob").await?;
    let _worker = Process::start(&env, "worker", &["--concurrency", "1"]).await?;
    has_completed_some(&env).await?;
    names_both(&env, &task, "scheduler_stopped", "lost_entry").await?;
    // The scheduler enqueues the task 10 s after it was lost, behind the others.
    sqlx::query("UPDATE tasks SET enqueued_at = now() - interval '3 s' WHERE id = $1::uuid")
        .bind(&task)
        .execute(&env.db)
        .await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    names(&env, &task, "lost_entry").await
}
