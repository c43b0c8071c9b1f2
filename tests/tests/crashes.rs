//! Metrics of crashed attempts, and the liveness of a worker with a blocked processor.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, eventually};

const TIMEOUT: Duration = Duration::from_secs(20);
const CRASH_RETRIES: &str = "pulse_task_retries_total{reason=\"crash\"}";
const DEAD: &str = "pulse_tasks_settled_total{outcome=\"dead\"}";

/// Kills a worker with a running task and lets the task's lease expire.
async fn kill_busy_worker(env: &TestEnv, api: &Process) -> anyhow::Result<()> {
    let worker = Process::start(env, "worker", &[]).await?;
    api.client("ada").post_event("sleep:600000").await?;
    eventually("the task runs", TIMEOUT, async || {
        Ok(env.number("SELECT count(*) FROM tasks WHERE lease_until IS NOT NULL").await? == 1)
    })
    .await?;
    worker.kill().await?;
    sqlx::query("UPDATE tasks SET lease_until = now() - interval '1 second'").execute(&env.db).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn crashed_attempt_is_counted_as_retry_by_the_scheduler() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    kill_busy_worker(&env, &api).await?;
    let scheduler = Process::start(&env, "scheduler", &[]).await?;
    eventually("the retry is counted", TIMEOUT, async || Ok(scheduler.metric(CRASH_RETRIES).await? == 1.0)).await?;
    assert_eq!(scheduler.metric(DEAD).await?, 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn crashed_attempt_is_counted_as_retry_by_the_next_worker() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    kill_busy_worker(&env, &api).await?;
    let worker = Process::start(&env, "worker", &[]).await?;
    eventually("the retry is counted", TIMEOUT, async || Ok(worker.metric(CRASH_RETRIES).await? == 1.0)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_in_the_last_attempt_dead_letters_the_task() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-attempts", "1"]).await?;
    kill_busy_worker(&env, &api).await?;
    let scheduler = Process::start(&env, "scheduler", &[]).await?;
    eventually("the dead task is counted", TIMEOUT, async || Ok(scheduler.metric(DEAD).await? == 1.0)).await?;
    assert_eq!(env.number("SELECT count(*) FROM dead_tasks WHERE reason = 'crash'").await?, 1);
    assert_eq!(scheduler.metric(CRASH_RETRIES).await?, 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_is_live_again_after_its_blocked_processor_returns() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let worker = Process::start(&env, "worker", &["--task-timeout", "1s"]).await?;
    api.client("ada").post_event("block:6000").await?;
    let admin = worker.admin();
    let livez = async |status| Ok(admin.get("/livez").await?.status == status);
    eventually("the worker is not live", TIMEOUT, async || livez(503).await).await?;
    eventually("the worker is live again", TIMEOUT, async || livez(200).await).await
}
