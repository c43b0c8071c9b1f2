//! Two operators: one writes, the other takes over soon, and never do both write.

#![expect(clippy::print_stdout, reason = "what was measured is worth a look")]

use std::time::{Duration, Instant};

use pulse_tests::cluster::Proxy;
use pulse_tests::operator::{OperatorEnv, OperatorProcess, SOON};
use pulse_tests::{Client, eventually};
use rustix::process::Signal;
use serde_json::json;

/// The Lease of the tests' operators.
const LEASE: Duration = Duration::from_secs(3);
/// How much later the other one may lead at most.
const GRACE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced() -> anyhow::Result<()> {
    let Pair { bench, first, second } = Pair::start("killed").await?;
    bench.served(bench.installed_by_itself("main")).await?;
    assert_eq!(second.writes(), 0, "a standby writes nothing");
    let Party { process, proxy: _proxy } = first;
    process.kill().await?;
    let killed = Instant::now();
    second.leads().await?;
    takeover("killed", killed);
    scale(&bench, 4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_slept_through_its_lease_writes_nothing_and_ends() -> anyhow::Result<()> {
    let Pair { bench, mut first, second } = Pair::start("slept").await?;
    bench.served(bench.installed_by_itself("main")).await?;
    first.process.signal(Signal::STOP)?;
    let stopped = Instant::now();
    second.leads().await?;
    takeover("stopped", stopped);
    let before = first.writes();
    // Reasons to write, for both.
    scale(&bench, 4).await?;
    first.process.signal(Signal::CONT)?;
    scale(&bench, 5).await?;
    assert_ne!(first.process.ended().await?, 0, "the loss of the lead is no success");
    assert_eq!(first.writes() - before, 0, "writes of one that does not lead");
    println!("stopped: 0 writes by the old leader, {} by the new one", second.writes());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_reach_the_api_server_ends_and_comes_back_as_the_second() -> anyhow::Result<()> {
    let Pair { bench, mut first, second } = Pair::start("outage").await?;
    bench.served(bench.installed_by_itself("main")).await?;
    // The last write of its beginning.
    bench.tells("main", &["Ready"]).await?;
    let outage = first.proxy.outage();
    let began = Instant::now();
    let before = first.carried_out();
    second.leads().await?;
    takeover("outage", began);
    assert_ne!(first.process.ended().await?, 0);
    drop(outage);
    scale(&bench, 4).await?;
    assert_eq!(first.carried_out() - before, 0, "writes of one that does not lead");
    let again = Party { process: bench.operator_as(first.proxy.access(), &[]).await?, proxy: first.proxy };
    again.is_ready().await?;
    scale(&bench, 5).await?;
    assert!(!leads(&again.process).await?, "one leads already");
    assert_eq!(again.carried_out() - before, 0, "writes of one that does not lead");
    // And the other way round.
    let Party { process, proxy: _proxy } = second;
    process.kill().await?;
    let led = async || leads(&again.process).await;
    eventually("it leads again", LEASE + SOON, led).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_go_hands_over_at_once() -> anyhow::Result<()> {
    let Pair { bench, first, second } = Pair::start("released").await?;
    bench.served(bench.installed_by_itself("main")).await?;
    let told = Instant::now();
    let Party { process, proxy: _proxy } = first;
    assert_eq!(process.stop().await?, 0);
    second.leads().await?;
    println!("released: taken over {:.2?} after SIGTERM", told.elapsed());
    assert!(told.elapsed() < GRACE, "{:.2?}", told.elapsed());
    scale(&bench, 4).await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_for_both_one_leads() -> anyhow::Result<()> {
    let Pair { bench, mut first, second } = Pair::start("both").await?;
    bench.served(bench.installed_by_itself("main")).await?;
    let outages = [first.proxy.outage(), second.proxy.outage()];
    assert_ne!(first.process.ended().await?, 0, "it could not renew");
    drop(outages);
    second.leads().await?;
    scale(&bench, 4).await
}

/// An operator with its own way to the API server.
struct Party {
    process: OperatorProcess,
    proxy: Proxy,
}

/// One that leads, and one that is ready to.
struct Pair {
    bench: OperatorEnv,
    first: Party,
    second: Party,
}

impl Pair {
    async fn start(prefix: &str) -> anyhow::Result<Self> {
        let bench = OperatorEnv::start(prefix).await?;
        bench.secrets("redis://127.0.0.1:1").await?;
        let first = Party::start(&bench).await?;
        first.leads().await?;
        let second = Party::start(&bench).await?;
        second.is_ready().await?;
        Ok(Self { bench, first, second })
    }
}

impl Party {
    async fn start(bench: &OperatorEnv) -> anyhow::Result<Self> {
        let proxy = Proxy::start(bench.plane.admin()).await?;
        Ok(Self { process: bench.operator_as(proxy.access(), &[]).await?, proxy })
    }

    async fn leads(&self) -> anyhow::Result<()> {
        eventually("it leads", SOON, async || leads(&self.process).await).await
    }

    async fn is_ready(&self) -> anyhow::Result<()> {
        let admin = Client::new(&self.process.admin, "");
        eventually("it is ready", SOON, async || Ok(admin.get("/readyz").await?.status == 200)).await
    }

    /// Writes that were asked for, but those of the Lease.
    fn writes(&self) -> usize {
        self.proxy.count(|logged| logged.call.writes() && logged.call.resource != "leases")
    }

    /// The same, as far as they came through.
    fn carried_out(&self) -> usize {
        let other = |resource: &str| resource != "leases";
        self.proxy.count(|logged| logged.call.writes() && other(&logged.call.resource) && logged.status.is_some())
    }
}

async fn leads(operator: &OperatorProcess) -> anyhow::Result<bool> {
    let metrics = Client::new(&operator.admin, "").get("/metrics").await?.text;
    Ok(metrics.lines().any(|line| line == "pulse_operator_leader 1"))
}

fn takeover(how: &str, since: Instant) {
    println!("{how}: taken over after {:.2?}, with a Lease of {LEASE:?}", since.elapsed());
    assert!(since.elapsed() <= LEASE + GRACE, "{:.2?}", since.elapsed());
}

/// Whoever leads does this.
async fn scale(bench: &OperatorEnv, replicas: i32) -> anyhow::Result<()> {
    bench.change("main", json!({ "api": { "replicas": replicas } })).await?;
    let scaled = async || Ok(bench.replicas("main-api").await? == replicas);
    eventually(&format!("the API has {replicas} replicas"), SOON, scaled).await
}
