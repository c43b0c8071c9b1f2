//! Busy time of workers: the operator divides settled tasks by it to estimate the throughput of a full worker.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, eventually};

const TIMEOUT: Duration = Duration::from_secs(15);

/// Value of a published gauge; an error if it is not published.
async fn gauge(env: &TestEnv, field: &str) -> anyhow::Result<i64> {
    let mut connection = redis::Client::open(env.redis_url.as_str())?.get_multiplexed_async_connection().await?;
    Ok(redis::cmd("HGET").arg("pulse:{dev}:gauges").arg(field).query_async(&mut connection).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_time_of_fast_tasks_is_published() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    for _ in 0..20 {
        client.post_event("a").await?;
    }
    env.wait_until_settled(TIMEOUT).await?;
    let busy_us = env.number("SELECT sum(busy_us)::bigint FROM throughput").await?;
    assert!(busy_us > 20 * 50, "{busy_us} µs for 20 claims and settlements");
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    eventually("the gauges are published", TIMEOUT, async || Ok(gauge(&env, "settled_total").await? == 20)).await?;
    assert_eq!(gauge(&env, "busy_worker_ms").await?, busy_us / 1000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn busy_time_is_weighted_by_used_concurrency() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let mut events = vec!["sleep:500"; 7];
    events.push("invalid");
    for name in events {
        client.post_event(name).await?;
    }
    // Concurrency 4: 3.5 s of processing are at least 0.875 s of a full worker. Then one task alone: 0.5 s of a quarter
    // of the worker.
    let _worker = Process::start(&env, "worker", &["--concurrency", "4"]).await?;
    env.wait_until_settled(TIMEOUT).await?;
    let full = env.number("SELECT sum(busy_us)::bigint FROM throughput").await?;
    assert!((875_000..2_500_000).contains(&full), "{full} µs");
    client.post_event("sleep:500").await?;
    eventually("the task is counted", TIMEOUT, async || {
        Ok(env.number("SELECT sum(completed + dead)::bigint FROM throughput WHERE event_name = ''").await? == 9)
    })
    .await?;
    let alone = env.number("SELECT sum(busy_us)::bigint FROM throughput").await? - full;
    assert!((120_000..450_000).contains(&alone), "{alone} µs");
    Ok(())
}
