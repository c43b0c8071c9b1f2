//! Batches of which an event fails.

use std::time::Duration;

use anyhow::Context;
use pulse_tests::{Process, TestEnv, eventually};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::crashes::expire_leases;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Posts a batch with these event names and returns the id of its task.
async fn post_batch(api: &Process, names: &[&str]) -> anyhow::Result<String> {
    let events: Vec<Value> = names.iter().map(|name| json!({"event_name": name, "event_type": "t"})).collect();
    let answer = api.client("ada").post("/api/v1/events/batch", &json!({"events": events})).await?;
    anyhow::ensure!(answer.status == 202, "{}", answer.text);
    Ok(answer.json["task_id"].as_str().context("a task id")?.to_owned())
}

async fn task(api: &Process, id: &str) -> anyhow::Result<Value> {
    Ok(api.client("ada").get(&format!("/api/v1/tasks/{id}")).await?.json)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failed_event_of_a_hundred_is_dead_and_the_others_complete_at_once() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let mut names = vec!["page_view"; 100];
    names[41] = "invalid";
    let id = post_batch(&api, &names).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    env.wait_until_settled(TIMEOUT).await?;
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processed AND processing_error IS NULL").await?, 99);
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processing_error = 'as scripted'").await?, 1);
    let batch = task(&api, &id).await?;
    assert_eq!(batch["state"], "dead", "{batch}");
    let child = batch["children"][0].as_str().context("a child")?;
    let child = task(&api, child).await?;
    assert_eq!((&child["state"], &child["parent_task_id"]), (&json!("dead"), &json!(id)), "{child}");
    assert_eq!(child["errors"][0]["error"], "as scripted", "{child}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_is_retrying_while_a_child_is_open_and_completed_when_all_are() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let id = post_batch(&api, &["page_view", "fail", "page_view"]).await?;
    let worker = Process::start(&env, "worker", &["--retry-base", "1"]).await?;
    eventually("the batch is split", TIMEOUT, async || {
        Ok(env.number("SELECT count(*) FROM tasks WHERE parent_id IS NOT NULL").await? == 1)
    })
    .await?;
    assert_eq!(task(&api, &id).await?["state"], "retrying");
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processed").await?, 2);
    // The cause of the failure is gone: the next attempt succeeds.
    sqlx::query("UPDATE events SET event_name = 'page_view'").execute(&env.db).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    env.wait_until_settled(TIMEOUT).await?;
    assert_eq!(task(&api, &id).await?["state"], "completed");
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processed").await?, 3);
    drop(worker);
    Ok(())
}

/// Each event is either processed or has exactly one task, and not both.
async fn assert_one_state_per_event(env: &TestEnv) -> anyhow::Result<()> {
    let wrong = env
        .number(
            "SELECT count(*) FROM events
             WHERE processed::int + (SELECT count(*) FROM tasks WHERE events.id = ANY (event_ids))
                   + (SELECT count(*) FROM dead_tasks WHERE events.id = ANY (event_ids)) <> 1",
        )
        .await?;
    anyhow::ensure!(wrong == 0, "{wrong} events are in no state or in two");
    Ok(())
}

/// The scheduler may wait for the table too.
const WAITING_WORKERS: &str = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
                               WHERE NOT granted AND application_name LIKE 'pulse worker%'";

#[tokio::test(flavor = "multi_thread")]
async fn worker_killed_at_any_table_of_a_split_leaves_each_event_in_one_state() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    // The statement writes to these tables one after the other: a lock on one of them stops it there.
    for table in ["events", "tasks", "dead_tasks", "throughput", "task_history"] {
        post_batch(&api, &["sleep:300", "fail", "invalid", "page_view"]).await?;
        let worker = Process::start(&env, "worker", &[]).await?;
        eventually("the batch runs", TIMEOUT, async || {
            Ok(env.number("SELECT count(*) FROM tasks WHERE lease_until IS NOT NULL").await? >= 1)
        })
        .await?;
        let mut lock = env.db.begin().await?;
        sqlx::query(AssertSqlSafe(format!("LOCK TABLE {table} IN SHARE MODE"))).execute(&mut *lock).await?;
        eventually("the settlement waits for the table", TIMEOUT, async || Ok(env.number(WAITING_WORKERS).await? >= 1))
            .await?;
        worker.kill().await?;
        lock.rollback().await?;
        assert_one_state_per_event(&env).await?;
        expire_leases(&env).await?;
    }
    let _worker = Process::start(&env, "worker", &[]).await?;
    env.wait_until_settled(Duration::from_secs(60)).await?;
    assert_one_state_per_event(&env).await?;
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processed").await?, 10);
    assert_eq!(env.number("SELECT count(*) FROM dead_tasks").await?, 10);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_with_deleted_events_processes_the_rest() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let id = post_batch(&api, &["a", "b", "c"]).await?;
    sqlx::query("DELETE FROM events WHERE event_name = 'a'").execute(&env.db).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    env.wait_until_settled(TIMEOUT).await?;
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processed").await?, 2);
    assert_eq!(task(&api, &id).await?["state"], "completed");
    Ok(())
}
