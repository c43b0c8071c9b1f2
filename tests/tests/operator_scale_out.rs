//! Many instances: all of them become ready, and an idle operator writes nothing.

#![expect(clippy::print_stdout, reason = "the test prints what it measures")]

use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use kube::api::{DynamicObject, ListParams};
use pulse_tests::operator::{OperatorEnv, OperatorProcess, is_reconciled};
use pulse_tests::queue::TestQueue;
use pulse_tests::{Client, cpu_seconds, eventually};
use serde_json::json;

const INSTANCES: usize = if cfg!(feature = "long") { 1000 } else { 100 };
/// Time in which an idle operator must not write.
const IDLE_TIME: Duration = Duration::from_secs(if cfg!(feature = "long") { 60 } else { 25 });
/// Time for the first reconcile of every instance after a start.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Limit for the resident memory of the operator, in MiB.
const MAX_MEMORY_MIB: u64 = 150;

#[tokio::test(flavor = "multi_thread")]
async fn many_instances_become_ready_and_then_cause_no_writes() -> anyhow::Result<()> {
    let env = OperatorEnv::start("many").await?;
    let queue = TestQueue::start(&format!("{}/o0", env.namespace)).await?;
    env.create_secrets(&queue.url).await?;
    let started = Instant::now();
    let create = |number: usize| {
        // Every tenth instance has autoscaling, and two of ten have a console: one of each kind.
        let autoscaling = number.is_multiple_of(10).then(|| json!({ "minReplicas": 1, "maxReplicas": 10 }));
        let console = json!({ "enabled": number % 10 < 2 });
        let changes = json!({ "workers": { "autoscaling": autoscaling }, "console": console });
        let env = &env;
        async move { env.create(&format!("o{number}"), changes).await.map(drop) }
    };
    stream::iter(0..INSTANCES).map(create).buffer_unordered(16).try_collect::<()>().await?;
    println!("{INSTANCES} instances created in {:.1?}", started.elapsed());

    let user = format!("{}-operator", env.namespace);
    let access = env.plane.user(&user, Some("system:masters")).await?;
    let operator = env.start_operator_with_default_intervals(&access, &[]).await?;
    wait_for_all(&env, &operator, "observed", |object| object.data["status"]["observedGeneration"] == 1).await?;
    // No Job controller runs yet, so no migration Job has a pod, and Events are searched for the reason.
    let searches = event_searches(&env, &user)?;
    assert!(searches <= 2 * started.elapsed().as_secs() + 1, "{searches} searches in {:?}", started.elapsed());
    env.with_simulator(wait_for_all(&env, &operator, "ready", |object| {
        serde_json::to_value(object).is_ok_and(|object| is_reconciled(&object))
    }))
    .await?;
    assert_eq!(operator.stop().await?, 0);
    let before = writes(&env, &user)?;

    let operator = env.start_operator_with_default_intervals(&access, &[]).await?;
    let started = Instant::now();
    let all_reconciled = async || Ok(reconciles(&operator).await? >= INSTANCES as f64);
    eventually("every instance is reconciled", TIME_LIMIT, all_reconciled).await?;
    println!("{INSTANCES} reconciled {:.1?} after a restart; {}", started.elapsed(), memory(&operator)?);
    // Samples are taken every 10 s. After three reconciles of each instance, every status is up to date.
    eventually("every instance is reconciled three times", TIME_LIMIT, async || {
        Ok(reconciles(&operator).await? >= 3.0 * INSTANCES as f64)
    })
    .await?;

    if cfg!(feature = "long") {
        // It has a queue, and was the last to learn that it is idle: a minute after the restart.
        let is_idle = async || {
            let object = env.instances().get("o0").await?;
            Ok(object.data["status"]["autoscaling"]["lastDecision"]["reason"] == "Idle")
        };
        eventually("o0 is idle", TIME_LIMIT * 2, is_idle).await?;
        let enough = reconciles(&operator).await? + 2.0 * INSTANCES as f64;
        eventually("its console knows", TIME_LIMIT, async || Ok(reconciles(&operator).await? >= enough)).await?;
    }
    let after = writes(&env, &user)?;
    let of_others: Vec<_> = after[before.len()..].iter().filter(|write| !write.contains(r#""name":"o0"#)).collect();
    assert_eq!(of_others, [""; 0], "after a restart");

    let before = after;
    let (reconciled, cpu) = (reconciles(&operator).await?, cpu_seconds(operator.pid().unwrap_or(0))?);
    tokio::time::sleep(IDLE_TIME).await;
    let after = writes(&env, &user)?;
    let (reconciled, cpu) =
        (reconciles(&operator).await? - reconciled, cpu_seconds(operator.pid().unwrap_or(0))? - cpu);
    println!(
        "{} writes in {IDLE_TIME:?}, in {reconciled} reconciles that took {cpu:.1} s of CPU time; {}",
        after.len() - before.len(),
        memory(&operator)?
    );
    assert_eq!(&after[before.len()..], [""; 0]);
    assert!(resident_mib(&operator, "VmRSS")? <= MAX_MEMORY_MIB);
    Ok(())
}

/// Waits until the condition holds for all instances; `what` names it.
async fn wait_for_all(
    env: &OperatorEnv,
    operator: &OperatorProcess,
    what: &str,
    condition: impl Fn(&DynamicObject) -> bool,
) -> anyhow::Result<()> {
    let started = Instant::now();
    // A list of all instances costs the API server as much as hundreds of other calls, so it starts only after as many
    // reconciles as there are instances.
    let enough = async || Ok(reconciles(operator).await? >= INSTANCES as f64);
    eventually("as many reconciles as instances", TIME_LIMIT * 5, enough).await?;
    println!("{} reconciles after {:.1?}", reconciles(operator).await?, started.elapsed());
    let reached = async || {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let objects = env.instances().list(&ListParams::default()).await?;
        let reached = objects.iter().filter(|object| condition(object)).count();
        anyhow::ensure!(reached == INSTANCES, "{reached} of {INSTANCES} are {what}");
        Ok(true)
    };
    eventually(&format!("all are {what}"), TIME_LIMIT * 5, reached).await?;
    println!("{INSTANCES} {what} {:.1?} later; {}", started.elapsed(), memory(operator)?);
    Ok(())
}

/// The write requests of the operator in the audit log, without those for its Lease.
fn writes(env: &OperatorEnv, user: &str) -> anyhow::Result<Vec<String>> {
    let mut events = env.plane.audit(user)?;
    events.retain(|event| {
        let verb = event["verb"].as_str().unwrap_or_default();
        !matches!(verb, "get" | "list" | "watch") && event["objectRef"]["resource"] != "leases"
    });
    Ok(events.iter().map(|event| format!("{} {}", event["verb"], event["objectRef"])).collect())
}

fn event_searches(env: &OperatorEnv, user: &str) -> anyhow::Result<u64> {
    let mut events = env.plane.audit(user)?;
    events.retain(|event| event["verb"] == "list" && event["objectRef"]["resource"] == "events");
    Ok(u64::try_from(events.len())?)
}

async fn reconciles(operator: &OperatorProcess) -> anyhow::Result<f64> {
    let metrics = Client::new(&operator.admin, "").get("/metrics").await?.text;
    let lines = metrics.lines().filter(|line| line.starts_with("pulse_operator_reconciles_total"));
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

fn memory(operator: &OperatorProcess) -> anyhow::Result<String> {
    let [anonymous, resident, peak] = ["RssAnon", "VmRSS", "VmHWM"].map(|line| resident_mib(operator, line));
    Ok(format!("{} MiB resident, {} of them anonymous, {} at its peak", resident?, anonymous?, peak?))
}

fn resident_mib(operator: &OperatorProcess, line: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.pid().unwrap_or(0)))?;
    let value = status.lines().find_map(|found| found.strip_prefix(line)).unwrap_or_default();
    Ok(value.trim_matches(|letter: char| !letter.is_ascii_digit()).parse::<u64>()? / 1024)
}
