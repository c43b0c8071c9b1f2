//! `pulse tasks cancel` in every state, beside workers and other transactions.

use std::time::Duration;

use http::Method;
use pulse_tests::{Client, Process, TestEnv, eventually, pulse_output};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until a task has this state.
async fn wait_for(client: &Client, id: &str, state: &str) -> anyhow::Result<()> {
    eventually(&format!("the task is {state}"), TIMEOUT, async || {
        Ok(client.get(&format!("/api/v1/tasks/{id}")).await?.json["state"] == state)
    })
    .await
}

/// Waits until the count of unprocessed events and the filter of the list agree, and returns the counts.
///
/// Two requests see two states while a worker completes tasks.
async fn unprocessed(client: &Client) -> anyhow::Result<Value> {
    let mut counts = Value::Null;
    eventually("the count and the list agree", TIMEOUT, async || {
        counts = client.get("/api/v1/events/status/unprocessed").await?.json;
        let list = client.get("/api/v1/events?processed=false&limit=500").await?.json;
        Ok(counts["unprocessed_count"] == json!(list["events"].as_array().map_or(0, Vec::len)))
    })
    .await?;
    Ok(counts)
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_task_of_any_state_ends_and_its_events_stay_unprocessed() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let worker = Process::start(&env, "worker", &["--retry-base", "1000"]).await?;
    let client = api.client("ada");
    let (running, retrying) = (client.post_event("sleep:4000").await?, client.post_event("fail").await?);
    let (dead, done) = (client.post_event("invalid").await?, client.post_event("good").await?);
    for (id, state) in [(&running, "running"), (&retrying, "retrying"), (&dead, "dead"), (&done, "completed")] {
        wait_for(&client, id, state).await?;
    }
    let batch = json!({"events": [{"event_name": "a", "event_type": "t"}, {"event_name": "b", "event_type": "t"}]});
    let batch = client.send(Method::POST, "/api/v1/events/batch", &[], batch.to_string().into()).await?;
    let other = batch.json["task_id"].as_str().unwrap_or_default().to_owned();
    assert_eq!(unprocessed(&client).await?["cancelled_count"], 0);

    let (_, list) = pulse_output(&env, &["tasks", "list", "--state", "running,retrying", "--user", "ada"]).await?;
    assert!(list.contains(&running) && list.contains(&retrying) && !list.contains(&dead), "{list}");
    let (_, list) = pulse_output(&env, &["tasks", "list", "--state", "running,retrying", "--reason", "error"]).await?;
    assert!(!list.contains(&running) && list.contains(&retrying), "{list}");

    let (code, output) = pulse_output(&env, &["tasks", "cancel", &running, &retrying, &dead, &done]).await?;
    assert!(code == 0 && output.contains("3 tasks cancelled") && output.contains("1 tasks do not exist"), "{output}");
    for id in [&running, &retrying, &dead] {
        wait_for(&client, id, "cancelled").await?;
    }
    let counts = unprocessed(&client).await?;
    assert_eq!((&counts["cancelled_count"], &counts["failed_count"]), (&json!(3), &json!(0)), "{counts}");
    // The worker finds the task gone when its attempt ends.
    let stale = async || Ok(worker.metric("pulse_stale_settlements_total").await? == 1.0);
    eventually("the settlement is stale", TIMEOUT, stale).await?;
    wait_for(&client, &running, "cancelled").await?;
    wait_for(&client, &other, "completed").await?;
    let counts = unprocessed(&client).await?;
    assert_eq!(counts["unprocessed_count"], 3, "{counts}");
    let log = std::fs::read_to_string(&worker.log)?;
    let errors: Vec<&str> =
        log.lines().filter(|line| line.contains("ERROR") && !line.contains("task dead-lettered")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_all_takes_one_state_of_one_user_in_chunks() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let (ada, bob) = (api.client("ada"), api.client("bob"));
    let kept = bob.post_event("a").await?;
    ada.post_event("a").await?;
    let many = "INSERT INTO tasks (id, kind, user_id, event_ids, bytes, max_attempts)
                SELECT gen_random_uuid(), 'process_event', (SELECT id FROM users WHERE subject = 'ada'), ARRAY[-n], 600, 3
                FROM generate_series(1, 2500) AS n";
    sqlx::query(many).execute(&env.db).await?;
    let (_, output) = pulse_output(&env, &["tasks", "cancel", "--all"]).await?;
    assert!(output.contains("0 tasks cancelled"), "--all alone takes dead tasks only: {output}");
    let cancel = ["tasks", "cancel", "--all", "--state", "pending", "--user", "ada"];
    let (_, output) = pulse_output(&env, &[&cancel[..], &["--limit", "1100"]].concat()).await?;
    assert!(output.contains("1100 tasks cancelled"), "{output}");
    let (_, output) = pulse_output(&env, &cancel).await?;
    assert!(output.contains("1401 tasks cancelled"), "{output}");
    wait_for(&bob, &kept, "pending").await?;
    assert_eq!(pulse_output(&env, &["tasks", "cancel", "--all", "--user", "missing"]).await?.0, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn task_locked_by_another_transaction_is_reported_as_busy() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let (locked, free) = (client.post_event("a").await?, client.post_event("a").await?);
    let mut other = env.db.begin().await?;
    sqlx::query("SELECT FROM tasks WHERE id = $1::uuid FOR UPDATE").bind(&locked).execute(&mut *other).await?;
    let (code, output) = pulse_output(&env, &["tasks", "cancel", &locked, &free]).await?;
    assert!(code == 1 && output.contains("1 tasks cancelled") && output.contains("1 tasks are busy"), "{output}");
    other.rollback().await?;
    let (code, output) = pulse_output(&env, &["tasks", "cancel", &locked]).await?;
    assert!(code == 0 && output.contains("1 tasks cancelled"), "{output}");
    Ok(())
}
