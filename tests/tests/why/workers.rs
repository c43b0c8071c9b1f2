//! Workers that died or were stopped while they had the task.

use pulse_queue::{Consumer, Queue, QueueConfig};
use pulse_tests::{Process, TestEnv, eventually};
use rustix::process::Signal;

use crate::env::{TIMEOUT, execute, has_completed_some, leased, lock, names, names_both, trickle};

#[tokio::test(flavor = "multi_thread")]
async fn lease_of_a_killed_worker_needs_time_and_then_a_scheduler() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let killed = Process::start(&env, "worker", &[]).await?;
    let task = api.client("ada").post_event("sleep:600000").await?;
    leased(&env, 1).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    killed.kill().await?;
    names(&env, &task, "lease_not_expired").await?;
    execute(&env, "UPDATE tasks SET lease_until = now() - interval '1 s'").await?;
    names(&env, &task, "scheduler_stopped").await?;
    let transaction = lock(&env, &task).await?;
    names_both(&env, &task, "row_locked", "scheduler_stopped").await?;
    transaction.rollback().await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    names(&env, &task, "running").await
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_that_died_with_a_delivery_is_named() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let task = api.client("ada").post_event("a").await?;
    let queue = Queue::connect_lazy(&QueueConfig {
        url: env.redis_url.clone(),
        ca: None,
        identity: None,
        instance: "dev".into(),
    })?;
    let mut gone = Consumer::new(&queue, "gone-host.0123456789ab".into());
    eventually("the entry is read", TIMEOUT, async || Ok(!gone.read(1, std::time::Duration::ZERO).await?.is_empty()))
        .await?;
    drop(gone);
    trickle(&api, "bob").await?;
    let _worker = Process::start(&env, "worker", &["--concurrency", "1"]).await?;
    has_completed_some(&env).await?;
    // The worker never gets to search PostgreSQL, so only a scheduler helps.
    names_both(&env, &task, "scheduler_stopped", "worker_gone").await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    names(&env, &task, "worker_gone").await
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_worker_is_not_a_dead_one() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let worker = Process::start(&env, "worker", &[]).await?;
    let task = api.client("ada").post_event("sleep:600000").await?;
    leased(&env, 1).await?;
    worker.signal(Signal::STOP)?;
    // As after 20 s, and the time since the last read.
    execute(&env, "UPDATE tasks SET lease_until = now() + interval '10 s'").await?;
    names(&env, &task, "worker_stopped").await?;
    worker.signal(Signal::CONT)?;
    names(&env, &task, "running").await
}
