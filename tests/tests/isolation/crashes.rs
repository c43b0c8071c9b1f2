//! Workers that die: whose attempt it is, and what is counted. And a worker with a blocked processor.

use std::time::{Duration, Instant};

use pulse_tests::{Process, TestEnv, eventually};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(20);
const CRASH_RETRIES: &str = "pulse_task_retries_total{reason=\"crash\"}";
const DEAD: &str = "pulse_tasks_settled_total{outcome=\"dead\"}";

/// Lets the leases of all tasks expire.
pub(crate) async fn expire_leases(env: &TestEnv) -> anyhow::Result<()> {
    let expire = "UPDATE tasks SET lease_until = now() - interval '1 second' WHERE lease_until IS NOT NULL";
    sqlx::query(expire).execute(&env.db).await?;
    Ok(())
}

/// Kills a worker with a running task, and lets the lease expire.
async fn kill_busy_worker(env: &TestEnv) -> anyhow::Result<()> {
    let worker = Process::start(env, "worker", &[]).await?;
    eventually("the task runs", TIMEOUT, async || {
        Ok(env.number("SELECT count(*) FROM tasks WHERE lease_until IS NOT NULL").await? == 1)
    })
    .await?;
    worker.kill().await?;
    expire_leases(env).await
}

#[tokio::test(flavor = "multi_thread")]
async fn first_crash_uses_no_attempt_and_the_next_one_dead_letters_after_the_last() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-attempts", "1"]).await?;
    let task = api.client("ada").post_event("sleep:600000").await?;
    kill_busy_worker(&env).await?;
    let scheduler = Process::start(&env, "scheduler", &[]).await?;
    eventually("the retry is counted", TIMEOUT, async || Ok(scheduler.metric(CRASH_RETRIES).await? == 1.0)).await?;
    let answer = api.client("ada").get(&format!("/api/v1/tasks/{task}")).await?.json;
    assert_eq!(
        (answer["attempts"].as_i64(), answer["errors"].as_array().map(Vec::len)),
        (Some(0), Some(0)),
        "{answer}"
    );
    kill_busy_worker(&env).await?;
    eventually("the dead task is counted", TIMEOUT, async || Ok(scheduler.metric(DEAD).await? == 1.0)).await?;
    assert_eq!(env.number("SELECT count(*) FROM dead_tasks WHERE reason = 'crash' AND attempts = 1").await?, 1);
    Ok(())
}

/// Runs workers, one after the other, until every task is settled. Each dies of a task that aborts the process.
async fn run_dying_workers(env: &TestEnv) -> anyhow::Result<u32> {
    let mut deaths = 0;
    let deadline = Instant::now() + Duration::from_secs(90);
    while Instant::now() < deadline {
        let mut worker = Process::spawn(env, "worker", &[])?;
        loop {
            if env.number("SELECT count(*) FROM tasks").await? == 0 {
                worker.stop().await?;
                return Ok(deaths);
            }
            if worker.has_ended()? {
                deaths += 1;
                expire_leases(env).await?;
                break;
            }
            anyhow::ensure!(Instant::now() < deadline, "tasks are left after {deaths} deaths");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    anyhow::bail!("tasks are left after {deaths} deaths")
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_that_aborts_the_worker_ends_only_its_own_task_dead() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-attempts", "2"]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let (ada, eve) = (api.client("ada"), api.client("eve"));
    for _ in 0..20 {
        ada.post_event("page_view").await?;
    }
    let poison = eve.post_event("abort").await?;
    for _ in 0..20 {
        ada.post_event("sleep:20").await?;
    }
    let deaths = run_dying_workers(&env).await?;
    assert_eq!(deaths, 3, "in company, and in both attempts alone");
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processed").await?, 40);
    let attempts = "SELECT count(*) FROM task_history WHERE outcome = 'completed' AND attempts = 1";
    assert_eq!(env.number(attempts).await?, 40, "no task of others used an attempt more");
    let answer = eve.get(&format!("/api/v1/tasks/{poison}")).await?.json;
    assert_eq!((answer["state"].as_str(), answer["attempts"].as_i64()), (Some("dead"), Some(2)), "{answer}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn event_that_aborts_the_worker_ends_dead_without_the_rest_of_its_batch() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-attempts", "1"]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let event = |name| json!({"event_name": name, "event_type": "t"});
    let events: Vec<_> = ["a", "b", "abort", "c"].map(event).into();
    let posted = api.client("eve").post("/api/v1/events/batch", &json!({"events": events})).await?;
    assert_eq!(posted.status, 202, "{}", posted.text);
    run_dying_workers(&env).await?;
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processed").await?, 3);
    assert_eq!(env.number("SELECT count(*) FROM dead_tasks WHERE reason = 'crash'").await?, 1);
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
