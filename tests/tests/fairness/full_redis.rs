//! A full Redis: workers find tasks in PostgreSQL as fast as without Redis.

use std::time::Duration;

use futures_util::StreamExt;
use pulse_tests::{Process, TestEnv};
use tokio::time::Instant;

const TASKS: i64 = 3000;

/// Posts tasks, starts a worker, and returns how many tasks it completes per second.
async fn rate(env: &TestEnv) -> anyhow::Result<f64> {
    let api = Process::start(env, "api", &["--drain-delay", "0s"]).await?;
    let client = api.client("ada");
    let posted: Vec<_> =
        futures_util::stream::iter(0..TASKS).map(|_| client.post_event("a")).buffer_unordered(64).collect().await;
    for task in posted {
        task?;
    }
    let _worker = Process::start(env, "worker", &[]).await?;
    let (before, started) = (env.number("SELECT count(*) FROM tasks").await?, Instant::now());
    env.wait_until_settled(Duration::from_secs(60)).await?;
    Ok(before as f64 / started.elapsed().as_secs_f64())
}

#[expect(clippy::print_stderr, reason = "prints measurements")]
#[tokio::test(flavor = "multi_thread")]
async fn full_redis_is_as_fast_as_a_stopped_one() -> anyhow::Result<()> {
    let mut env = TestEnv::with_redis_setting("maxmemory", "1kb").await?;
    // Side by side, because others use the machine too.
    let (mut full, mut stopped): (f64, f64) = (0.0, 0.0);
    for _ in 0..2 {
        full = full.max(rate(&env).await?);
        env.kill_and_wipe_redis().await?;
        stopped = stopped.max(rate(&env).await?);
        env.start_redis().await?;
    }
    eprintln!("tasks per second: {full:.0} with a full Redis, {stopped:.0} with a stopped one");
    assert!(full >= 0.8 * stopped, "{full:.0} tasks per second with a full Redis, {stopped:.0} with a stopped one");
    Ok(())
}
