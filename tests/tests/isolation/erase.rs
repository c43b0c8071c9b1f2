//! The erasure of a user with many events delays no other user.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use std::time::{Duration, Instant};

use anyhow::Context;
use pulse_tests::latency::{GOOD, p99, post_beside, post_steadily};
use pulse_tests::user_data::{disable_long_ago, id_of, insert_user, rows_of};
use pulse_tests::{Process, TestEnv, pulse};
use serde_json::{Value, json};

const EVENTS: u32 = if cfg!(feature = "long") { 1_000_000 } else { 100_000 };
const TIMEOUT: Duration = Duration::from_secs(if cfg!(feature = "long") { 1800 } else { 60 });

#[tokio::test(flavor = "multi_thread")]
async fn erasure_of_a_large_user_delays_no_other_user() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    insert_user(&env, "big", "canary", EVENTS).await?;
    insert_user(&env, "other", "canary", 1000).await?;
    let (big, other) = (id_of(&env, "big").await?, id_of(&env, "other").await?);
    let others = rows_of(&env, other).await?;
    disable_long_ago(&env, big).await?;
    // So that the statements after the large inserts are not what is measured.
    sqlx::raw_sql("CHECKPOINT").execute(&env.db).await?;
    let poster = api.client("poster");
    let before = p99(&post_steadily(&poster, Duration::from_secs(10)).await?);

    let started = Instant::now();
    let erasure = async {
        let erasure = pulse(&env, &["user", "erase", "big", "--yes", "--json"]).output();
        let output = tokio::time::timeout(TIMEOUT, erasure).await.context("the erasure ends")??;
        Ok((output, started.elapsed()))
    };
    let ((output, took), latencies) = post_beside(&poster, erasure).await?;
    let during = p99(&latencies);
    println!(
        "{EVENTS} events in {took:?}; p99 of {} posts of another user {during:?}, {before:?} before",
        latencies.len()
    );
    let receipt: Value =
        serde_json::from_slice(&output.stdout).context(String::from_utf8_lossy(&output.stderr).into_owned())?;
    let few = EVENTS / 20;
    let expected = json!({"events": EVENTS, "tasks": few, "dead_tasks": few, "task_history": EVENTS,
                          "idempotency_keys": few, "users": 1});
    assert_eq!(receipt["deleted"], expected);
    assert_eq!((rows_of(&env, big).await?, rows_of(&env, other).await?), (0, others));
    assert!(
        during <= (2 * before).max(GOOD),
        "p99 of the other's posts: {during:?} beside the erasure, {before:?} before"
    );
    Ok(())
}
