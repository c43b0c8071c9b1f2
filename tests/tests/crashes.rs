//! What is counted when workers die, and what is not held against them for ever.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, eventually};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);
const CRASH_RETRIES: &str = "pulse_task_retries_total{reason=\"crash\"}";
const DEAD: &str = "pulse_tasks_settled_total{outcome=\"dead\"}";

/// Starts a task, kills its worker, and lets 30 s pass for the lease.
async fn kill_a_worker_at_work(world: &TestEnv, api: &Process) -> anyhow::Result<()> {
    let worker = Process::start(world, "worker", &[]).await?;
    api.client("ada").post("/api/v1/events", &json!({"event_name": "sleep:600000", "event_type": "t"})).await?;
    eventually("the task runs", SOON, async || {
        Ok(world.number("SELECT count(*) FROM tasks WHERE lease_until IS NOT NULL").await? == 1)
    })
    .await?;
    worker.kill().await?;
    sqlx::query("UPDATE tasks SET lease_until = now() - interval '1 second'").execute(&world.db).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_ended_with_its_worker_is_a_retry_for_the_scheduler() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    kill_a_worker_at_work(&world, &api).await?;
    let scheduler = Process::start(&world, "scheduler", &[]).await?;
    eventually("the retry is counted", SOON, async || Ok(scheduler.metric(CRASH_RETRIES).await? == 1.0)).await?;
    assert_eq!(scheduler.metric(DEAD).await?, 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_finds_it_first_counts_it() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    kill_a_worker_at_work(&world, &api).await?;
    let worker = Process::start(&world, "worker", &[]).await?;
    eventually("the retry is counted", SOON, async || Ok(worker.metric(CRASH_RETRIES).await? == 1.0)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_last_attempt_it_is_buried_and_counted() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &["--max-attempts", "1"]).await?;
    kill_a_worker_at_work(&world, &api).await?;
    let scheduler = Process::start(&world, "scheduler", &[]).await?;
    eventually("it is counted", SOON, async || Ok(scheduler.metric(DEAD).await? == 1.0)).await?;
    assert_eq!(world.number("SELECT count(*) FROM dead_tasks WHERE reason = 'crash'").await?, 1);
    assert_eq!(scheduler.metric(CRASH_RETRIES).await?, 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_live_again_when_its_stuck_step_has_ended() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let worker = Process::start(&world, "worker", &["--task-timeout", "1s"]).await?;
    api.client("ada").post("/api/v1/events", &json!({"event_name": "block:6000", "event_type": "t"})).await?;
    let admin = worker.admin();
    let livez = async |status| Ok(admin.get("/livez").await?.status == status);
    eventually("it is not live", SOON, async || livez(503).await).await?;
    eventually("it is live again", SOON, async || livez(200).await).await
}
