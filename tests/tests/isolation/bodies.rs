//! The largest events that are still accepted: a worker in a container stays below its limit, and other users do not wait.

use std::time::Duration;

use pulse_tests::{Client, MemoryCgroup, Process, TestEnv, eventually};
use serde_json::Value;

const LIMIT: u64 = 512 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(90);

/// A batch of 100 events, each as long as possible when it is read back: a number with an exponent of −300 has 303 digits.
fn numbers() -> anyhow::Result<Value> {
    let payload = format!(r#"{{"n":[{}]}}"#, vec!["1e-300"; 210].join(","));
    batch(&payload, 100)
}

/// A batch of 1 MB of strings, each of 32 KB.
fn strings() -> anyhow::Result<Value> {
    batch(&format!(r#"{{"text":"{}"}}"#, "x".repeat(32_000)), 31)
}

fn batch(payload: &str, events: usize) -> anyhow::Result<Value> {
    let event = format!(r#"{{"event_name":"large","event_type":"t","payload":{payload}}}"#);
    Ok(serde_json::from_str(&format!(r#"{{"events":[{}]}}"#, vec![event; events].join(",")))?)
}

async fn post_batch(client: &Client, batch: &Value) -> anyhow::Result<()> {
    let answer = client.post("/api/v1/events/batch", batch).await?;
    anyhow::ensure!(answer.status == 202, "{}", answer.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_in_a_container_survives_the_largest_events_and_others_wait_less_than_5_seconds() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let (large, small) = (api.client("large"), api.client("small"));
    for _ in 0..7 {
        post_batch(&large, &numbers()?).await?;
        post_batch(&large, &strings()?).await?;
    }
    let cgroup = MemoryCgroup::new(LIMIT)?;
    let mut worker = Process::spawn_in(&cgroup, &env, "worker", &[])?;
    eventually("the worker works", TIMEOUT, async || Ok(env.number("SELECT count(*) FROM task_history").await? > 0))
        .await?;
    for _ in 0..20 {
        small.post_event("small").await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    env.wait_until_settled(TIMEOUT).await?;
    assert!(!worker.has_ended()?, "the worker was killed: {}", std::fs::read_to_string(&worker.log)?);
    let failed = "SELECT count(*) FROM task_history WHERE outcome <> 'completed' OR attempts <> 1";
    assert_eq!(env.number(failed).await?, 0);
    let slowest = "SELECT max(extract(epoch FROM settled_at - h.created_at) * 1000)::bigint
                   FROM task_history h JOIN users ON users.id = user_id WHERE subject = 'small'";
    let slowest = env.number(slowest).await?;
    assert!(slowest < 5000, "a task of the other user took {slowest} ms");
    let peak = cgroup.peak()?;
    assert!(peak < LIMIT * 9 / 10, "the worker used {peak} bytes of {LIMIT}");
    worker.stop().await?;
    Ok(())
}
