//! What workers publish of their attempts: the operator divides the time of attempts by their number.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, eventually};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Values of published gauges; an error if they are not published.
async fn gauges<const N: usize>(env: &TestEnv, fields: [&str; N]) -> anyhow::Result<Vec<i64>> {
    let mut connection = redis::Client::open(env.redis_url.as_str())?.get_multiplexed_async_connection().await?;
    Ok(redis::cmd("HMGET").arg("pulse:{dev}:gauges").arg(&fields).query_async(&mut connection).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn number_and_time_of_attempts_are_published() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &["--concurrency", "4"]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let client = api.client("ada");
    for name in ["sleep:500", "sleep:500", "sleep:500", "sleep:500", "invalid", "fail"] {
        client.post_event(name).await?;
    }
    let ended = async || Ok(gauges(&env, ["attempts_total", "retried_total"]).await? >= [6, 1].into());
    eventually("six attempts have ended, one of them in a retry", TIMEOUT, ended).await?;
    env.wait_until_settled(TIMEOUT).await?;
    // The event that fails has three attempts, two of them with a retry. Sleeping takes 2 s, and failing nothing.
    let fields = ["accepted_total", "attempts_total", "retried_total"];
    let all = async || Ok(gauges(&env, fields).await? == [6, 8, 2]);
    eventually("every attempt is counted once", TIMEOUT, all).await?;
    let published = gauges(&env, ["attempt_ms_total", "oldest_due_ms"]).await?;
    assert!((2000..3500).contains(&published[0]) && published[1] == -1, "{published:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn time_of_an_attempt_counts_while_it_runs() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &["--concurrency", "4"]).await?;
    api.client("ada").post_event("sleep:60000").await?;
    // Heartbeats, every 10 s, report it.
    let reported = async || Ok(env.number("SELECT coalesce(sum(attempt_us), 0)::bigint FROM throughput").await? > 0);
    eventually("the time of the running attempt is counted", TIMEOUT, reported).await?;
    assert_eq!(env.number("SELECT count(*) FROM tasks WHERE lease_until IS NOT NULL").await?, 1, "it still runs");
    assert_eq!(env.number("SELECT sum(completed + failed)::bigint FROM throughput").await?, 0);
    Ok(())
}
