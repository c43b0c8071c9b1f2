//! Autoscaling with a Redis that has Sentinels, and with a Redis Cluster, whose primary fails while tasks wait.

use std::time::Instant;

use pulse_tests::cluster::Node;
use pulse_tests::{ClusterRedis, SentinelRedis};
use serde_json::json;

use crate::node_env::{NodeEnv, TIMEOUT};

/// 100 batches of 100 events, each batch a task of 4 s.
const BURST: [&str; 12] = [
    "--rate",
    "5000",
    "--duration",
    "2s",
    "--batch",
    "100",
    "--connections",
    "8",
    "--payload-bytes",
    "60",
    "--event-name",
    "sleep:40",
];

async fn workers_follow_the_queue_through(
    env: &NodeEnv,
    failover: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _operator = env.start_operator()?;
    let fast = json!({ "stabilizationWindowSeconds": 0, "percent": 1000, "workers": 10, "periodSeconds": 1 });
    let target = json!({ "backlogPerWorker": 10, "drainSeconds": 5 });
    let behavior = json!({ "scaleUp": fast, "scaleDown": fast });
    env.apply(json!({ "workers": { "concurrency": 4, "autoscaling": {
        "minReplicas": 1, "maxReplicas": 3, "idleSeconds": 10, "target": target, "behavior": behavior,
    } } }))
    .await?;
    env.wait_for_condition("Ready").await?;

    let start = Instant::now();
    let report = env.run_load(&BURST).await?;
    assert_eq!((&report["accepted_events"], &report["refused"]), (&json!(10_000), &json!({})), "{report}");
    env.eventually("there are three workers", async || Ok(env.deployment("worker").await?.0 == 3)).await?;
    println!("three workers wanted after {:.1} s", start.elapsed().as_secs_f64());
    failover().await?;
    println!("failover after {:.1} s", start.elapsed().as_secs_f64());
    env.servers.wait_until_settled(TIMEOUT).await?;
    println!("10,000 events were processed after {:.1} s", start.elapsed().as_secs_f64());
    env.eventually("one worker is left", async || Ok(env.deployment("worker").await?.0 == 1)).await?;
    env.wait_for_condition("QueueReachable").await?;
    assert_eq!(env.servers.check_ledger("ledger").await?, 10_000);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_follow_a_queue_whose_primary_is_replaced_by_sentinels() -> anyhow::Result<()> {
    let env = NodeEnv::start("sentinels").await?;
    let mut redis = SentinelRedis::start(&env.servers, Node::HOST).await?;
    env.apply_secret("main-redis", "url", &redis.url).await?;
    workers_follow_the_queue_through(&env, async || {
        redis.nodes[0].kill().await?;
        redis.wait_for_failover(0).await.map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_follow_a_queue_on_a_redis_cluster_through_a_failover() -> anyhow::Result<()> {
    let env = NodeEnv::start("redis-cluster").await?;
    let mut redis = ClusterRedis::start(&env.servers, Node::HOST).await?;
    env.apply_secret("main-redis", "url", &redis.url).await?;
    let key = format!("pulse:{{{}/main}}:tasks", env.namespace);
    workers_follow_the_queue_through(&env, async || {
        let node = redis.node_of(&key).await?;
        redis.nodes[node].kill().await?;
        redis.node_of(&key).await.map(drop)
    })
    .await
}
