//! Leader election with two operators: one writes, the standby takes over soon, and never do both write.

#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

use std::time::{Duration, Instant};

use pulse_tests::cluster::Proxy;
use pulse_tests::operator::{OperatorEnv, OperatorProcess, TIMEOUT};
use pulse_tests::{Client, eventually};
use rustix::process::Signal;
use serde_json::json;

/// Duration of the operators' Lease.
const LEASE_DURATION: Duration = Duration::from_secs(3);
/// Time that a takeover may take after the expiry of the Lease.
const TAKEOVER_SLACK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn killed_leader_is_replaced() -> anyhow::Result<()> {
    let OperatorPair { env, first, second } = OperatorPair::start("killed").await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    assert_eq!(second.attempted_writes(), 0, "a standby writes nothing");
    let ProxiedOperator { process, proxy: _proxy } = first;
    process.kill().await?;
    let killed = Instant::now();
    second.wait_until_leader().await?;
    check_takeover("killed", killed);
    scale(&env, 4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_leader_writes_nothing_after_its_lease_expired() -> anyhow::Result<()> {
    let OperatorPair { env, mut first, second } = OperatorPair::start("stopped").await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    first.process.signal(Signal::STOP)?;
    let stopped = Instant::now();
    second.wait_until_leader().await?;
    check_takeover("stopped", stopped);
    let before = first.attempted_writes();
    // Changes that either operator would write.
    scale(&env, 4).await?;
    first.process.signal(Signal::CONT)?;
    scale(&env, 5).await?;
    assert_ne!(first.process.wait_for_exit().await?, 0, "the loss of the Lease is an error exit");
    assert_eq!(first.attempted_writes() - before, 0, "writes by an operator that does not lead");
    println!("stopped: 0 writes by the old leader, {} by the new one", second.attempted_writes());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnected_leader_exits_and_returns_as_standby() -> anyhow::Result<()> {
    let OperatorPair { env, mut first, second } = OperatorPair::start("outage").await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    // The Event is the last write of the installation.
    env.wait_for_events("main", &["Ready"]).await?;
    let outage = first.proxy.outage();
    let began = Instant::now();
    let before = first.completed_writes();
    second.wait_until_leader().await?;
    check_takeover("outage", began);
    assert_ne!(first.process.wait_for_exit().await?, 0);
    drop(outage);
    scale(&env, 4).await?;
    assert_eq!(first.completed_writes() - before, 0, "writes by an operator that does not lead");
    let restarted =
        ProxiedOperator { process: env.start_operator_via(first.proxy.access(), &[]).await?, proxy: first.proxy };
    restarted.wait_until_ready().await?;
    scale(&env, 5).await?;
    assert!(!is_leader(&restarted.process).await?, "the other operator leads");
    assert_eq!(restarted.completed_writes() - before, 0, "writes by an operator that does not lead");
    // The restarted operator takes over in turn.
    let ProxiedOperator { process, proxy: _proxy } = second;
    process.kill().await?;
    let leads_again = async || is_leader(&restarted.process).await;
    eventually("the restarted operator leads", LEASE_DURATION + TIMEOUT, leads_again).await
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_leader_releases_the_lease_at_once() -> anyhow::Result<()> {
    let OperatorPair { env, first, second } = OperatorPair::start("released").await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    let signalled = Instant::now();
    let ProxiedOperator { process, proxy: _proxy } = first;
    assert_eq!(process.stop().await?, 0);
    second.wait_until_leader().await?;
    println!("released: taken over {:.2?} after SIGTERM", signalled.elapsed());
    assert!(signalled.elapsed() < TAKEOVER_SLACK, "{:.2?}", signalled.elapsed());
    scale(&env, 4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_of_both_operators_ends_with_one_leader() -> anyhow::Result<()> {
    let OperatorPair { env, mut first, second } = OperatorPair::start("both").await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    let outages = [first.proxy.outage(), second.proxy.outage()];
    assert_ne!(first.process.wait_for_exit().await?, 0, "an operator that cannot renew the Lease exits with an error");
    drop(outages);
    second.wait_until_leader().await?;
    scale(&env, 4).await
}

/// An operator with its own proxy to the API server.
struct ProxiedOperator {
    process: OperatorProcess,
    proxy: Proxy,
}

/// `first` leads, and `second` is a ready standby.
struct OperatorPair {
    env: OperatorEnv,
    first: ProxiedOperator,
    second: ProxiedOperator,
}

impl OperatorPair {
    async fn start(prefix: &str) -> anyhow::Result<Self> {
        let env = OperatorEnv::start(prefix).await?;
        env.create_secrets("redis://127.0.0.1:1").await?;
        let first = ProxiedOperator::start(&env).await?;
        first.wait_until_leader().await?;
        let second = ProxiedOperator::start(&env).await?;
        second.wait_until_ready().await?;
        Ok(Self { env, first, second })
    }
}

impl ProxiedOperator {
    async fn start(env: &OperatorEnv) -> anyhow::Result<Self> {
        let proxy = Proxy::start(env.plane.admin()).await?;
        Ok(Self { process: env.start_operator_via(proxy.access(), &[]).await?, proxy })
    }

    async fn wait_until_leader(&self) -> anyhow::Result<()> {
        eventually("the operator leads", TIMEOUT, async || is_leader(&self.process).await).await
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let admin = Client::new(&self.process.admin, "");
        eventually("the operator is ready", TIMEOUT, async || Ok(admin.get("/readyz").await?.status == 200)).await
    }

    /// Number of write requests, without those for the Lease.
    fn attempted_writes(&self) -> usize {
        self.proxy.count(|logged| logged.call.writes() && logged.call.resource != "leases")
    }

    /// Number of write requests that got an answer, without those for the Lease.
    fn completed_writes(&self) -> usize {
        self.proxy.count(|logged| logged.call.writes() && logged.call.resource != "leases" && logged.status.is_some())
    }
}

async fn is_leader(operator: &OperatorProcess) -> anyhow::Result<bool> {
    let metrics = Client::new(&operator.admin, "").get("/metrics").await?.text;
    Ok(metrics.lines().any(|line| line == "pulse_operator_leader 1"))
}

fn check_takeover(how: &str, since: Instant) {
    println!("{how}: taken over after {:.2?}, with a Lease of {LEASE_DURATION:?}", since.elapsed());
    assert!(since.elapsed() <= LEASE_DURATION + TAKEOVER_SLACK, "{:.2?}", since.elapsed());
}

/// Changes `api.replicas` and waits until the leader has applied it.
async fn scale(env: &OperatorEnv, replicas: i32) -> anyhow::Result<()> {
    env.patch_spec("main", json!({ "api": { "replicas": replicas } })).await?;
    let scaled = async || Ok(env.replicas("main-api").await? == replicas);
    eventually(&format!("the API has {replicas} replicas"), TIMEOUT, scaled).await
}
