//! The closed control loop of autoscaling: the backlog sets the number of workers, and the workers reduce the backlog.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::node_env::{NodeEnv, TIMEOUT};
use crate::worker_watch::WorkerWatch;

/// 500 batches of 100 events, each batch a task of 4 s.
const BURST: [&str; 12] = [
    "--rate",
    "10000",
    "--duration",
    "5s",
    "--batch",
    "100",
    "--connections",
    "16",
    "--payload-bytes",
    "60",
    "--event-name",
    "sleep:40",
];

#[tokio::test(flavor = "multi_thread")]
async fn workers_follow_the_queue_up_and_down_to_zero() -> anyhow::Result<()> {
    let mut env = NodeEnv::start("scaling").await?;
    let _operator = env.start_operator()?;
    let behavior = json!({
        "scaleUp": { "stabilizationWindowSeconds": 0, "percent": 100, "workers": 1, "periodSeconds": 3 },
        "scaleDown": { "stabilizationWindowSeconds": 10, "percent": 10, "workers": 2, "periodSeconds": 4 },
    });
    let target = json!({ "backlogPerWorker": 100, "drainSeconds": 10 });
    env.apply(json!({ "workers": { "autoscaling": {
        "minReplicas": 0, "maxReplicas": 5, "idleSeconds": 10, "target": target, "behavior": behavior,
    } } }))
    .await?;
    env.wait_for_condition("Ready").await?;
    let watch = WorkerWatch::start(&env)?;

    let start = Instant::now();
    let report = env.run_load(&BURST).await?;
    assert_eq!((&report["accepted_events"], &report["refused"]), (&json!(50_000), &json!({})), "{report}");
    let five = async || Ok(env.deployment("worker").await?.0 == 5);
    env.eventually("there are maxReplicas workers", five).await?;
    println!("five workers wanted after {:.1} s", start.elapsed().as_secs_f64());
    redis_loss_does_not_scale_down(&mut env).await?;
    env.servers.wait_until_settled(TIMEOUT * 2).await?;
    println!("50,000 events were processed after {:.1} s", start.elapsed().as_secs_f64());

    busy_worker_is_kept(&env, &watch).await?;
    let none = async || Ok(env.deployment("worker").await?.0 == 0 && env.all_pods("worker").await?.is_empty());
    env.eventually("no worker is left", none).await?;
    println!("no worker after {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    env.wait_until_completed(&env.post_event("page_view").await?).await?;
    println!("with no worker, an event was processed {:.1} s after it was posted", start.elapsed().as_secs_f64());

    let accepted = env.servers.check_ledger("ledger").await?;
    assert_eq!(accepted, 50_002);
    let path = watch.replicas();
    let (removed, violations) = watch.removals();
    println!("{accepted} events, {removed} workers removed, replicas: {path:?}");
    assert!(violations.is_empty(), "{violations:#?}");
    let list_events =
        ["get", "events", "--field-selector=involvedObject.name=main", "--sort-by=.metadata.creationTimestamp"];
    assert!(has_single_peak(&path), "{path:?}\n{}", env.kubectl(&list_events).await?);
    each_change_has_an_event(&env, &watch).await
}

/// Each task takes 30 s, so a worker that is removed too early would lose much work.
#[cfg(feature = "long")]
#[tokio::test(flavor = "multi_thread")]
async fn workers_follow_a_queue_of_tasks_that_take_30_seconds() -> anyhow::Result<()> {
    let env = NodeEnv::start("slow").await?;
    let _operator = env.start_operator()?;
    let behavior =
        json!({ "scaleDown": { "stabilizationWindowSeconds": 10, "percent": 10, "workers": 2, "periodSeconds": 4 } });
    env.apply(json!({ "workers": { "concurrency": 16, "autoscaling": {
        "minReplicas": 0, "maxReplicas": 5, "idleSeconds": 10, "target": { "drainSeconds": 60 }, "behavior": behavior,
    } } }))
    .await?;
    env.wait_for_condition("Ready").await?;
    let watch = WorkerWatch::start(&env)?;
    let start = Instant::now();
    let burst = ["--rate", "80", "--duration", "5s", "--connections", "4", "--event-name", "sleep:30000"];
    let report = env.run_load(&burst).await?;
    assert_eq!((&report["accepted_events"], &report["refused"]), (&json!(400), &json!({})), "{report}");
    let five = async || Ok(env.deployment("worker").await?.0 == 5);
    env.eventually("there are maxReplicas workers", five).await?;
    println!("five workers wanted after {:.1} s", start.elapsed().as_secs_f64());
    env.servers.wait_until_settled(TIMEOUT * 4).await?;
    println!("400 tasks of 30 s were processed after {:.1} s", start.elapsed().as_secs_f64());
    let none = async || Ok(env.deployment("worker").await?.0 == 0 && env.all_pods("worker").await?.is_empty());
    env.eventually("no worker is left", none).await?;
    println!("no worker after {:.1} s", start.elapsed().as_secs_f64());
    let (removed, violations) = watch.removals();
    println!("{removed} workers removed, replicas: {:?}", watch.replicas());
    assert!(violations.is_empty(), "{violations:#?}");
    let repeated = "SELECT count(*) FROM task_history WHERE attempts <> 1 OR outcome <> 'completed'";
    assert_eq!(env.servers.number(repeated).await?, 0, "each task has one attempt");
    Ok(())
}

/// Redis is killed and loses its data while tasks are unsettled. The operator must not treat that as an empty queue.
async fn redis_loss_does_not_scale_down(env: &mut NodeEnv) -> anyhow::Result<()> {
    let left = env.servers.number("SELECT count(*) FROM tasks").await?;
    assert!(left > 100, "only {left} unsettled tasks are left, which is too few for this test");
    env.servers.kill_and_wipe_redis().await?;
    let unreachable = async || Ok(!env.reason("QueueReachable", "False").await?.is_empty());
    env.eventually("the operator reports that Redis is unreachable", unreachable).await?;
    let unknown = async || Ok(env.reason("ScalingActive", "False").await? == "MetricsUnavailable");
    env.eventually("the operator reports that the backlog is unknown", unknown).await?;
    assert_eq!(env.deployment("worker").await?.0, 5, "an unknown backlog does not scale down");
    env.servers.start_redis().await
}

/// With one long task and several idle workers, the idle workers are removed, the busy one stays, and the task has one
/// attempt.
async fn busy_worker_is_kept(env: &NodeEnv, watch: &WorkerWatch) -> anyhow::Result<()> {
    let start = Instant::now();
    let task = env.post_event("sleep:45000").await?;
    let worker_pod = async || -> anyhow::Result<String> {
        let worker = "SELECT worker FROM tasks WHERE worker IS NOT NULL";
        let worker: String = sqlx::query_scalar(worker).fetch_one(&env.servers.db).await?;
        Ok(worker.rsplit_once('.').context("<pod>.<boot id>")?.0.to_owned())
    };
    env.eventually("Redis has the task in flight at its worker", async || Ok(watch.busy() == [worker_pod().await?]))
        .await?;
    let busy = vec![worker_pod().await?];
    assert!(env.pods("worker").await?.len() > 1, "there is no idle worker");
    env.eventually("one worker is left", async || Ok(env.pods("worker").await?.len() == 1)).await?;
    println!("one worker {:.1} s after the long task was posted", start.elapsed().as_secs_f64());
    let left: Vec<String> = env.pods("worker").await?.iter().map(ResourceExt::name_any).collect();
    assert_eq!(env.servers.number("SELECT count(*) FROM tasks").await?, 1, "the task is still running");
    assert_eq!(left, busy, "{:?}", watch.removals());
    env.wait_until_completed(&task).await?;
    let attempts = format!("SELECT attempts::bigint FROM task_history WHERE id = '{task}'");
    assert_eq!(env.servers.number(&attempts).await?, 1);
    Ok(())
}

/// Returns true if the replicas rise to five once, fall to zero once, and then rise again. Before the rise, the first
/// worker may be scaled to zero.
///
/// One worker may be removed and added again at the top: when Redis comes back, its streams are empty until the requeue job has
/// run, and the backlog looks small if the operator samples it in between.
fn has_single_peak(path: &[i32]) -> bool {
    let mut path = path.to_vec();
    if let Some(dip) = path.windows(3).position(|counts| counts == [5, 4, 5]) {
        path.drain(dip..dip + 2);
    }
    let Some(top) = path.iter().position(|count| *count == 5) else { return false };
    let first = path[..top].iter().rposition(|count| *count == 0).unwrap_or(0);
    let Some(end) = path[top..].iter().position(|count| *count == 0) else { return false };
    path[first..=top].is_sorted()
        && path[top..=top + end].is_sorted_by(|left, right| left >= right)
        && path[top + end + 1..].first().is_some_and(|count| *count > 0)
}

/// There is exactly one Kubernetes Event for each change of the replicas.
async fn each_change_has_an_event(env: &NodeEnv, watch: &WorkerWatch) -> anyhow::Result<()> {
    let events_match = async || {
        let changes = watch.replicas();
        let mut expected: BTreeMap<(String, String), i32> = BTreeMap::new();
        for change in changes.windows(2) {
            let (from, to) = (change[0], change[1]);
            let reason = match change {
                [0, _] => "WokeFromZero",
                [_, 0] => "ScaledToZero",
                _ if to > from => "ScaledUp",
                _ => "ScaledDown",
            };
            *expected.entry((reason.to_owned(), format!("Scale{from}To{to}"))).or_default() += 1;
        }
        let mut found: BTreeMap<(String, String), i32> = BTreeMap::new();
        for event in env.api::<Event>().list(&ListParams::default()).await?.items {
            let action = event.action.filter(|action| action.starts_with("Scale") && action.contains("To"));
            let (Some(reason), Some(action)) = (event.reason, action) else { continue };
            let count = event.series.and_then(|series| series.count).unwrap_or(1);
            *found.entry((reason, action)).or_default() += count;
        }
        anyhow::ensure!(found == expected, "replicas: {changes:?}, Events: {found:?}");
        Ok(true)
    };
    env.eventually("each change has an Event", events_match).await
}
