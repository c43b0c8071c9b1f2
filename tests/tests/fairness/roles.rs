//! The roles: another user's task during a long backlog, and the entries of an API that ends.

use std::time::Duration;

use futures_util::StreamExt;
use pulse_tests::{Process, TestEnv, eventually};
use rustix::process::Signal;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Number of entries in both streams.
async fn entries(env: &TestEnv) -> anyhow::Result<u64> {
    let mut connection = redis::Client::open(env.redis_url.as_str())?.get_multiplexed_async_connection().await?;
    let mut pipeline = redis::pipe();
    pipeline.cmd("XLEN").arg("pulse:{dev}:tasks").cmd("XLEN").arg("pulse:{dev}:bulk");
    let (tasks, bulk): (u64, u64) = pipeline.query_async(&mut connection).await?;
    Ok(tasks + bulk)
}

#[tokio::test(flavor = "multi_thread")]
async fn task_of_another_user_does_not_wait_for_a_deep_user() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let (ada, bob) = (api.client("ada"), api.client("bob"));
    let events = futures_util::stream::iter(0..1500).map(|_| ada.post_event("sleep:20"));
    let posted: Vec<_> = events.buffer_unordered(32).collect().await;
    for task in posted {
        task?;
    }
    eventually("the tasks are enqueued", TIMEOUT, async || Ok(entries(&env).await? == 1500)).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let _worker = Process::start(&env, "worker", &["--concurrency", "2"]).await?;
    // Only the bulk stream is left: 500 tasks of Ada, 5 s of work.
    eventually("the first tasks are settled", TIMEOUT, async || {
        Ok(env.number("SELECT count(*) FROM tasks").await? <= 500)
    })
    .await?;
    bob.post_event("a").await?;
    let settled = "SELECT count(*) FROM events WHERE event_name = 'a' AND processed";
    eventually("Bob's event is processed", TIMEOUT, async || Ok(env.number(settled).await? == 1)).await?;
    let left = env.number("SELECT count(*) FROM tasks").await?;
    assert!(left > 300, "Ada had only {left} tasks left");
    env.wait_until_settled(TIMEOUT).await?;
    assert_eq!(env.number("SELECT max(attempts)::bigint FROM task_history").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn api_that_ends_enqueues_its_last_accepted_tasks() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut api = Process::start(&env, "api", &["--drain-delay", "0s"]).await?;
    let client = api.client("ada");
    client.post_event("a").await?;
    eventually("the connection to Redis is open", TIMEOUT, async || Ok(entries(&env).await? == 1)).await?;
    // Redis answers again only when the API has closed its port.
    env.signal_redis(Signal::STOP)?;
    for _ in 0..3 {
        client.post_event("a").await?;
    }
    let address = api.url.replace("http://", "");
    let resume = async {
        let is_closed = async || Ok(tokio::net::TcpStream::connect(&address).await.is_err());
        eventually("the API closes its port", TIMEOUT, is_closed).await?;
        env.signal_redis(Signal::CONT)
    };
    let (code, resumed) = tokio::join!(api.stop(), resume);
    resumed?;
    assert_eq!(code?, 0);
    assert_eq!(entries(&env).await?, 4);
    Ok(())
}
