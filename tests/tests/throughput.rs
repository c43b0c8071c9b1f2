//! What the operator divides: settled tasks by the time of fully busy workers.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, eventually};
use serde_json::json;

const SOON: Duration = Duration::from_secs(15);

/// A published gauge; an error while there is none.
async fn gauge(world: &TestEnv, field: &str) -> anyhow::Result<i64> {
    let mut connection = redis::Client::open(world.redis_url.as_str())?.get_multiplexed_async_connection().await?;
    Ok(redis::cmd("HGET").arg("pulse:{dev}:gauges").arg(field).query_async(&mut connection).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_tasks_take_time_too_and_it_is_published() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _worker = Process::start(&world, "worker", &[]).await?;
    let client = api.client("ada");
    for _ in 0..20 {
        client.post("/api/v1/events", &json!({"event_name": "a", "event_type": "t"})).await?;
    }
    world.settled(SOON).await?;
    let busy_us = world.number("SELECT sum(busy_us)::bigint FROM throughput").await?;
    assert!(busy_us > 20 * 50, "{busy_us} µs for 20 claims and settlements");
    let _scheduler = Process::start(&world, "scheduler", &[]).await?;
    eventually("the gauges are published", SOON, async || Ok(gauge(&world, "settled_total").await? == 20)).await?;
    assert_eq!(gauge(&world, "busy_worker_ms").await?, busy_us / 1000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_tasks_by_busy_time_is_what_a_full_worker_does() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let client = api.client("ada");
    let mut events = vec!["sleep:500"; 7];
    events.push("invalid");
    for name in events {
        client.post("/api/v1/events", &json!({"event_name": name, "event_type": "t"})).await?;
    }
    // Four slots: two rounds of half a second, 3.5 s of steps. Then one task alone: half a second of a quarter of the worker.
    let _worker = Process::start(&world, "worker", &["--concurrency", "4"]).await?;
    world.settled(SOON).await?;
    let full = world.number("SELECT sum(busy_us)::bigint FROM throughput").await?;
    assert!((900_000..2_500_000).contains(&full), "{full} µs");
    client.post("/api/v1/events", &json!({"event_name": "sleep:500", "event_type": "t"})).await?;
    eventually("it is counted", SOON, async || {
        Ok(world.number("SELECT sum(settled)::bigint FROM throughput").await? == 9)
    })
    .await?;
    let alone = world.number("SELECT sum(busy_us)::bigint FROM throughput").await? - full;
    assert!((120_000..450_000).contains(&alone), "{alone} µs");
    Ok(())
}
