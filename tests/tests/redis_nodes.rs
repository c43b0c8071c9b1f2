//! Redis with Sentinels and as a Cluster: failover, moved slots and empty replacements under load lose and repeat nothing.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use std::time::{Duration, Instant};

use anyhow::Context;
use pulse_tests::{ClusterRedis, Process, SentinelRedis, TestEnv, eventually, load, pulse_output, report};
use rustix::process::Signal;
use tokio::process::Child;

const RATE: u32 = 500;
const SECONDS: u32 = 20;
const TIMEOUT: Duration = Duration::from_secs(60);
/// Time from a failover until tasks start within a second again.
const NORMAL: Duration = Duration::from_secs(15);
const LOOPBACK: &str = "127.0.0.1";
/// A key of the instance.
const KEY: &str = "pulse:{dev}:tasks";

/// All roles under load.
struct Loaded {
    api: Process,
    worker: Process,
    scheduler: Process,
    load: Child,
}

impl Loaded {
    async fn start(env: &TestEnv) -> anyhow::Result<Self> {
        let [api, worker, scheduler] = Process::start_all(env).await?;
        let load = load(env, &api, RATE, SECONDS)?;
        let accepted = async || Ok(env.number("SELECT count(*) FROM events").await? > 1000);
        eventually("events are accepted", TIMEOUT, accepted).await?;
        Ok(Self { api, worker, scheduler, load })
    }

    /// Waits until all roles use Redis again and tasks start within a second.
    async fn wait_until_normal(&self, env: &TestEnv, since: Instant) -> anyhow::Result<()> {
        let roles = [&self.api, &self.worker, &self.scheduler];
        let normal = async || {
            for role in roles {
                let text = role.admin().get("/readyz").await?.text;
                if text.contains("degraded") {
                    return Ok(false);
                }
            }
            let late = "SELECT count(*) FROM tasks WHERE created_at < now() - interval '1 second'";
            Ok(env.number(late).await? == 0)
        };
        eventually("tasks start at once", TIMEOUT, normal).await?;
        println!("normal after {:.1?}", since.elapsed());
        anyhow::ensure!(since.elapsed() < NORMAL, "it took {:.1?}", since.elapsed());
        Ok(())
    }

    /// Waits for the end of the load. No post may have failed, no event be lost, none processed twice.
    async fn finish(self, env: &TestEnv) -> anyhow::Result<()> {
        let report = report(self.load).await?;
        env.wait_until_settled(TIMEOUT).await?;
        let events = env.check_ledger("ledger").await?;
        println!("{events} events, {report}");
        anyhow::ensure!(report["refused"] == serde_json::json!({}), "{report}");
        Ok(())
    }
}

async fn with_url(url: impl AsyncFnOnce(&TestEnv) -> anyhow::Result<String>) -> anyhow::Result<TestEnv> {
    let mut env = TestEnv::start().await?;
    env.redis_url = url(&env).await?;
    let (code, output) = pulse_output(&env, &["check"]).await?;
    // No scheduler has published gauges yet.
    anyhow::ensure!(output.contains("redis  commands = accepted"), "{code}: {output}");
    Ok(env)
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_by_sentinels_under_load_loses_nothing() -> anyhow::Result<()> {
    let mut redis = None;
    let env = with_url(async |env| Ok(redis.insert(SentinelRedis::start(env, LOOPBACK).await?).url.clone())).await?;
    let mut redis = redis.context("started")?;
    let loaded = Loaded::start(&env).await?;
    redis.nodes[0].kill().await?;
    let primary = redis.wait_for_failover(0).await?;
    let promoted = Instant::now();
    loaded.wait_until_normal(&env, promoted).await?;
    // The former primary comes back empty and becomes a replica; the Sentinels then move the primary on purpose.
    redis.nodes[0].start_again(&env).await?;
    redis.nodes[primary].signal(Signal::STOP)?;
    redis.wait_for_failover(primary).await?;
    let promoted = Instant::now();
    loaded.wait_until_normal(&env, promoted).await?;
    redis.nodes[primary].signal(Signal::CONT)?;
    loaded.finish(&env).await
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_and_moved_slot_of_a_cluster_under_load_lose_nothing() -> anyhow::Result<()> {
    let mut redis = None;
    let env = with_url(async |env| Ok(redis.insert(ClusterRedis::start(env, LOOPBACK).await?).url.clone())).await?;
    let mut redis = redis.context("started")?;
    let loaded = Loaded::start(&env).await?;
    redis.move_slot(KEY).await?;
    let moved = Instant::now();
    loaded.wait_until_normal(&env, moved).await?;
    let node = redis.node_of(KEY).await?;
    redis.nodes[node].kill().await?;
    redis.node_of(KEY).await?;
    let promoted = Instant::now();
    loaded.wait_until_normal(&env, promoted).await?;
    loaded.finish(&env).await
}
