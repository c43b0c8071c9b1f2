//! The closed loop: what is owed decides how many workers there are, and they decide what is owed.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::site::{NodeEnv, SOON};
use crate::watching::Watch;

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
async fn workers_follow_the_queue_up_and_down_to_none() -> anyhow::Result<()> {
    let mut site = NodeEnv::start("scaling").await?;
    let _operator = site.operator()?;
    let behavior = json!({
        "scaleUp": { "stabilizationWindowSeconds": 0, "percent": 100, "workers": 1, "periodSeconds": 3 },
        "scaleDown": { "stabilizationWindowSeconds": 10, "percent": 10, "workers": 2, "periodSeconds": 4 },
    });
    let target = json!({ "backlogPerWorker": 100, "drainSeconds": 10 });
    site.apply(json!({ "workers": { "autoscaling": {
        "minReplicas": 0, "maxReplicas": 5, "idleSeconds": 10, "target": target, "behavior": behavior,
    } } }))
    .await?;
    site.wait_for("Ready").await?;
    let watch = Watch::start(&site)?;

    let start = Instant::now();
    let report = site.load(&BURST).await?;
    assert_eq!((&report["accepted_events"], &report["refused"]), (&json!(50_000), &json!({})), "{report}");
    let five = async || Ok(site.deployment("worker").await?.0 == 5);
    site.soon("there are as many workers as may be", five).await?;
    println!("five workers after {:.1} s", start.elapsed().as_secs_f64());
    lose_redis(&mut site).await?;
    site.world.settled(SOON * 2).await?;
    println!("50,000 events were processed after {:.1} s", start.elapsed().as_secs_f64());

    whoever_works_stays(&site, &watch).await?;
    let none = async || Ok(site.deployment("worker").await?.0 == 0 && site.all_pods("worker").await?.is_empty());
    site.soon("nobody is left", none).await?;
    println!("no worker after {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    site.processed(&site.post("page_view").await?).await?;
    println!("an event was processed {:.1} s after it came, from no worker", start.elapsed().as_secs_f64());

    let promised = site.world.check_ledger("ledger").await?;
    assert_eq!(promised, 50_002);
    let path = watch.replicas();
    let (victims, wrong) = watch.victims();
    println!("{promised} events, {victims} workers were told to go, wanted: {path:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    let told = ["get", "events", "--field-selector=involvedObject.name=main", "--sort-by=.metadata.creationTimestamp"];
    assert!(is_one_hill(&path), "{path:?}\n{}", site.kubectl(&told).await?);
    each_change_is_told(&site, &watch).await
}

/// Redis ends in the middle of it and forgets everything. Nobody takes that for an empty queue.
async fn lose_redis(site: &mut NodeEnv) -> anyhow::Result<()> {
    let left = site.world.number("SELECT count(*) FROM tasks").await?;
    assert!(left > 100, "{left} tasks are left: too few to lose");
    site.world.lose_redis().await?;
    let away = async || Ok(!site.reason("QueueReachable", "False").await?.is_empty());
    site.soon("the operator misses Redis", away).await?;
    let unknown = async || Ok(site.reason("ScalingActive", "False").await? == "MetricsUnavailable");
    site.soon("the backlog is unknown", unknown).await?;
    assert_eq!(site.deployment("worker").await?.0, 5, "what is unknown is not zero");
    site.world.start_redis().await
}

/// One long task, and many workers without one: they go, the one that has it stays, and it is not tried twice.
async fn whoever_works_stays(site: &NodeEnv, watch: &Watch) -> anyhow::Result<()> {
    let start = Instant::now();
    let task = site.post("sleep:45000").await?;
    let holder = async || -> anyhow::Result<String> {
        let worker = "SELECT worker FROM tasks WHERE worker IS NOT NULL";
        let worker: String = sqlx::query_scalar(worker).fetch_one(&site.world.db).await?;
        Ok(worker.rsplit_once('.').context("<pod>.<boot id>")?.0.to_owned())
    };
    site.soon("Redis knows who has it", async || Ok(watch.busy() == [holder().await?])).await?;
    let busy = vec![holder().await?];
    assert!(site.pods("worker").await?.len() > 1, "somebody has nothing to do");
    site.soon("one worker is left", async || Ok(site.pods("worker").await?.len() == 1)).await?;
    println!("one worker {:.1} s after the last task but one", start.elapsed().as_secs_f64());
    let left: Vec<String> = site.pods("worker").await?.iter().map(ResourceExt::name_any).collect();
    assert_eq!(site.world.number("SELECT count(*) FROM tasks").await?, 1, "the task is still under way");
    assert_eq!(left, busy, "{:?}", watch.victims());
    site.processed(&task).await?;
    let attempts = format!("SELECT attempts::bigint FROM task_history WHERE id = '{task}'");
    assert_eq!(site.world.number(&attempts).await?, 1);
    Ok(())
}

/// Whether it goes up to five, stays there, goes down to none, and then up again; before, the first worker may rest.
fn is_one_hill(path: &[i32]) -> bool {
    let Some(top) = path.iter().position(|count| *count == 5) else { return false };
    let first = path[..top].iter().rposition(|count| *count == 0).unwrap_or(0);
    let Some(end) = path[top..].iter().position(|count| *count == 0) else { return false };
    path[first..=top].is_sorted()
        && path[top..=top + end].is_sorted_by(|left, right| left >= right)
        && path[top + end + 1..].first().is_some_and(|count| *count > 0)
}

/// An Event for each change of the number, and none besides.
async fn each_change_is_told(site: &NodeEnv, watch: &Watch) -> anyhow::Result<()> {
    let told = async || {
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
        for event in site.all::<Event>().list(&ListParams::default()).await?.items {
            let action = event.action.filter(|action| action.starts_with("Scale") && action.contains("To"));
            let (Some(reason), Some(action)) = (event.reason, action) else { continue };
            let count = event.series.and_then(|series| series.count).unwrap_or(1);
            *found.entry((reason, action)).or_default() += count;
        }
        anyhow::ensure!(found == expected, "wanted: {changes:?}, told: {found:?}");
        Ok(true)
    };
    site.soon("each change is told", told).await
}
