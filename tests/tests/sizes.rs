//! Bounds on the size of claim and settlement statements.

use std::time::Duration;

use pulse_tests::{Client, Process, TestEnv};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(30);

async fn post_batches(client: &Client, batches: usize, events: usize, payload_bytes: usize) -> anyhow::Result<()> {
    let event = json!({"event_name": "a", "event_type": "t", "payload": {"text": "x".repeat(payload_bytes)}});
    let batch = json!({"events": vec![event; events]});
    for _ in 0..batches {
        assert_eq!(client.post("/api/v1/events/batch", &batch).await?.status, 202);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn claim_size_is_bounded_by_its_bytes() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    post_batches(&api.client("ada"), 40, 90, 10_000).await?;
    let _worker = Process::start(&env, "worker", &["--concurrency", "64"]).await?;
    env.wait_until_settled(TIMEOUT).await?;
    // Tasks of one claim have the same `started_at`. Each has about 1 MB, and a claim stops at 8 MiB.
    let largest =
        env.number("SELECT max(tasks) FROM (SELECT count(*) AS tasks FROM task_history GROUP BY started_at) AS claims");
    let largest = largest.await?;
    assert!((4..=9).contains(&largest), "{largest} tasks in one claim");
    assert_eq!(env.number("SELECT count(*) FROM task_history").await?, 40);
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processed").await?, 3600);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_settlements_shrink_when_postgresql_is_out_of_memory() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    post_batches(&api.client("ada"), 40, 1, 10).await?;
    sqlx::raw_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF (SELECT count(*) FROM touched) > 5 THEN RAISE 'out of memory' USING ERRCODE = '53200'; END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER claim AFTER UPDATE ON tasks REFERENCING NEW TABLE AS touched
         FOR EACH STATEMENT EXECUTE FUNCTION refuse();
         CREATE TRIGGER settle AFTER DELETE ON tasks REFERENCING OLD TABLE AS touched
         FOR EACH STATEMENT EXECUTE FUNCTION refuse();",
    )
    .execute(&env.db)
    .await?;
    let _worker = Process::start(&env, "worker", &["--concurrency", "64"]).await?;
    env.wait_until_settled(TIMEOUT).await?;
    assert_eq!(env.number("SELECT count(*) FROM task_history WHERE outcome = 'completed'").await?, 40);
    Ok(())
}
