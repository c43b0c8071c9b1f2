//! Many objects: all of them seen soon, and then left alone.

#![expect(clippy::print_stdout, reason = "what was measured is worth a look")]

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use kube::api::{DynamicObject, ListParams};
use pulse_tests::operator::{OperatorEnv, OperatorProcess, is_settled};
use pulse_tests::queue::TestQueue;
use pulse_tests::{Client, eventually};
use serde_json::json;

const OBJECTS: usize = if cfg!(feature = "long") { 1000 } else { 100 };
/// How long nothing may be written.
const WATCHED: Duration = Duration::from_secs(if cfg!(feature = "long") { 60 } else { 25 });
const LIMIT: Duration = Duration::from_secs(60);
const MEMORY_MIB: u64 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn many_objects_are_seen_soon_and_then_left_alone() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("many").await?;
    let queue = TestQueue::start(&format!("{}/o0", bench.namespace)).await?;
    bench.secrets(&queue.url).await?;
    let started = Instant::now();
    let create = |number: usize| {
        // One of ten is scaled.
        let scaling = number.is_multiple_of(10).then(|| json!({ "minReplicas": 1, "maxReplicas": 10 }));
        let changes = json!({ "workers": { "autoscaling": scaling } });
        let bench = &bench;
        async move { bench.create(&format!("o{number}"), changes).await.map(drop) }
    };
    stream::iter(0..OBJECTS).map(create).buffer_unordered(16).try_collect::<()>().await?;
    println!("{OBJECTS} objects made in {:.1?}", started.elapsed());

    let user = format!("{}-operator", bench.namespace);
    let access = bench.plane.user(&user, Some("system:masters")).await?;
    let operator = bench.operator_with(&access, &[]).await?;
    all(&bench, &operator, "observed", |object| object.data["status"]["observedGeneration"] == 1).await?;
    bench
        .served(all(&bench, &operator, "ready", |object| {
            serde_json::to_value(object).is_ok_and(|object| is_settled(&object))
        }))
        .await?;
    assert_eq!(operator.stop().await?, 0);
    let before = writes(&bench, &user)?;

    let operator = bench.operator_with(&access, &[]).await?;
    let started = Instant::now();
    let cold = async || Ok(reconciles(&operator).await? >= OBJECTS as f64);
    eventually("all are looked at", LIMIT, cold).await?;
    println!("{OBJECTS} looked at {:.1?} after a cold start; {}", started.elapsed(), memory(&operator)?);
    // Samples come every 10 s: twice, so that every number was told.
    eventually("all are looked at thrice", LIMIT, async || Ok(reconciles(&operator).await? >= 3.0 * OBJECTS as f64))
        .await?;

    let (rounds, cpu) = (reconciles(&operator).await?, seconds(&operator)?);
    tokio::time::sleep(WATCHED).await;
    let after = writes(&bench, &user)?;
    let (rounds, cpu) = (reconciles(&operator).await? - rounds, seconds(&operator)? - cpu);
    println!(
        "{} writes in {WATCHED:?}, in {rounds} rounds that took {cpu:.1} s of a core; {}",
        after.len() - before.len(),
        memory(&operator)?
    );
    assert_eq!(&after[before.len()..], [""; 0]);
    assert!(resident_mib(&operator, "VmRSS")? <= MEMORY_MIB);
    Ok(())
}

/// Waits until all objects are so.
async fn all(
    bench: &OperatorEnv,
    operator: &OperatorProcess,
    what: &str,
    is_so: impl Fn(&DynamicObject) -> bool,
) -> anyhow::Result<()> {
    let started = Instant::now();
    // A look at all of them costs the API server as much as hundreds of calls: not before it may be so.
    let rounds = async || Ok(reconciles(operator).await? >= OBJECTS as f64);
    eventually("there were as many rounds", LIMIT * 5, rounds).await?;
    println!("{} rounds after {:.1?}", reconciles(operator).await?, started.elapsed());
    let reached = async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let objects = bench.instances().list(&ListParams::default()).await?;
        let reached = objects.iter().filter(|object| is_so(object)).count();
        anyhow::ensure!(reached == OBJECTS, "{reached} of {OBJECTS} are {what}");
        Ok(true)
    };
    eventually(&format!("all are {what}"), LIMIT * 5, reached).await?;
    println!("{OBJECTS} {what} {:.1?} later; {}", started.elapsed(), memory(operator)?);
    Ok(())
}

/// What the operator wrote, but for its Lease.
fn writes(bench: &OperatorEnv, user: &str) -> anyhow::Result<Vec<String>> {
    let mut events = bench.plane.audit(user)?;
    events.retain(|event| {
        let verb = event["verb"].as_str().unwrap_or_default();
        !matches!(verb, "get" | "list" | "watch") && event["objectRef"]["resource"] != "leases"
    });
    Ok(events.iter().map(|event| format!("{} {}", event["verb"], event["objectRef"])).collect())
}

async fn reconciles(operator: &OperatorProcess) -> anyhow::Result<f64> {
    let metrics = Client::new(&operator.admin, "").get("/metrics").await?.text;
    let lines = metrics.lines().filter(|line| line.starts_with("pulse_operator_reconciles_total"));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

fn memory(operator: &OperatorProcess) -> anyhow::Result<String> {
    Ok(format!("{} MiB, {} at most", resident_mib(operator, "VmRSS")?, resident_mib(operator, "VmHWM")?))
}

fn resident_mib(operator: &OperatorProcess, line: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.pid().unwrap_or(0)))?;
    let value = status.lines().find_map(|found| found.strip_prefix(line)).unwrap_or_default();
    Ok(value.trim_matches(|letter: char| !letter.is_ascii_digit()).parse::<u64>()? / 1024)
}

/// Of a core.
fn seconds(operator: &OperatorProcess) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", operator.pid().unwrap_or(0)))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}
