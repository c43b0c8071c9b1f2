//! A Redis that has what is over, and one that answers late.

use std::time::{Duration, Instant};

use pulse_tests::{Link, Process, RedisNode, TestEnv, eventually};

use crate::{Loaded, TIMEOUT};

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_goes_back_in_time_repeats_nothing() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let primary = RedisNode::start(&env, "127.0.0.1", &[]).await?;
    let copy = RedisNode::start(&env, "127.0.0.1", &["--replicaof", "127.0.0.1", &primary.port.to_string()]).await?;
    let link = Link::to(primary.port).await?;
    env.redis_url = format!("redis://127.0.0.1:{}", link.port);
    let api = Process::start(&env, "api", &[]).await?;
    // Slower than the load, so that the copy has entries of tasks that are settled later.
    let _worker = Process::start(&env, "worker", &["--concurrency", "1"]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let loaded = Loaded::start(&env, &api, 300, 12).await?;
    for name in ["sleep:500"; 20] {
        api.client("ada").post_event(name).await?;
    }
    let entries = async |node: &RedisNode| node.command::<u64>("XLEN pulse:{dev}:tasks").await;
    eventually("the copy has entries", TIMEOUT, async || Ok(entries(&copy).await? > 5)).await?;
    copy.command::<String>("REPLICAOF NO ONE").await?;
    let (stale, settled) = (entries(&copy).await?, env.number("SELECT count(*) FROM task_history").await?);
    let moved_on = async || Ok(env.number("SELECT count(*) FROM task_history").await? > settled + 500);
    eventually("the tasks of the copy are settled", TIMEOUT, moved_on).await?;
    link.lead_to(copy.port);
    println!("{stale} entries come back");
    loaded.finish(&env).await?;
    eventually("the entries are gone", TIMEOUT, async || Ok(entries(&copy).await? == 0)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_answers_three_seconds_late_delays_no_post() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let node = RedisNode::start(&env, "127.0.0.1", &[]).await?;
    env.redis_url = format!("redis://127.0.0.1:{}", node.port);
    let [api, _worker, _scheduler] = Process::start_all(&env).await?;
    let loaded = Loaded::start(&env, &api, 300, 10).await?;
    let started = Instant::now();
    node.command::<String>("CLIENT PAUSE 3000 ALL").await?;
    let mut slowest = Duration::ZERO;
    while started.elapsed() < Duration::from_secs(3) {
        let posted = Instant::now();
        api.client("ada").post_event("page_view").await?;
        slowest = slowest.max(posted.elapsed());
    }
    println!("the slowest post while Redis was late took {slowest:.1?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:.1?}");
    let report = loaded.finish(&env).await?;
    assert_eq!(report["refused"], serde_json::json!({}), "{report}");
    Ok(())
}
