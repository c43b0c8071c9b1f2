//! A burst, and what goes wrong meanwhile.

use std::time::Instant;

use serde_json::json;

use crate::site::{E2eEnv, Outside, report};

/// 400 tasks of 100 events in a few seconds, each task a second of work.
const BURST: &str = "--rate 8000 --duration 5s --batch 100 --connections 16 --payload-bytes 60 --event-name sleep:10";
/// Half a second of work for each event.
const STEADY: &str = "--rate 40 --duration 60s --event-name sleep:500";

/// More workers for a burst, fewer after it; and nothing is lost with any pod.
pub(crate) async fn under_load(site: &E2eEnv, api: &Outside) -> anyhow::Result<()> {
    site.types(
        "kubectl patch pulseingest main --type=merge -p '{\"spec\":{\"workers\":{\"concurrency\":4,\"autoscaling\":{
            \"minReplicas\":1,\"maxReplicas\":4,\"target\":{\"backlogPerWorker\":20,\"drainSeconds\":10},
            \"behavior\":{\"scaleUp\":{\"stabilizationWindowSeconds\":0,\"percent\":100,\"workers\":2,\"periodSeconds\":5},
                          \"scaleDown\":{\"stabilizationWindowSeconds\":15,\"percent\":100,\"workers\":4,\"periodSeconds\":5}}}}}}'",
    )
    .await?;
    site.soon("it is Ready", async || Ok(site.condition("Ready").await?.starts_with("True/"))).await?;
    let start = Instant::now();
    let (accepted, refused) = report(site.load(api, BURST)?).await?;
    assert_eq!((accepted, refused), (40_000, json!({})));
    let most = async || Ok(site.get("deployment main-worker", "{.spec.replicas}").await? == "4");
    site.soon("there are as many workers as may be", most).await?;
    println!("          four workers {:.1} s after the burst began", start.elapsed().as_secs_f64());
    let status = site.types("kubectl pulse status main").await?;
    println!("{status}");
    assert!(status.contains("ScaledUp"), "{status}");
    site.nothing_is_lost().await?;
    println!("          40,000 events were processed after {:.1} s", start.elapsed().as_secs_f64());

    let load = site.load(api, STEADY)?;
    worker_in_the_middle_of_its_work(site).await?;
    println!("          {:.1} s  a worker was killed at work", start.elapsed().as_secs_f64());
    restarted(site, "pod/redis-0", "data").await?;
    println!("          {:.1} s  Redis was deleted with all it had", start.elapsed().as_secs_f64());
    operator_that_leads(site).await?;
    println!("          {:.1} s  the operator that leads was deleted", start.elapsed().as_secs_f64());
    let api_pod = site.pod_of("api").await?;
    site.types(&format!("kubectl delete pod {api_pod}")).await?;
    site.types("kubectl rollout status deployment/main-api --timeout=2m").await?;
    println!("          {:.1} s  an API pod was deleted", start.elapsed().as_secs_f64());
    site.types(
        "kubectl rollout restart deployment/main-api && kubectl rollout status deployment/main-api --timeout=2m",
    )
    .await?;
    println!("          {:.1} s  the API was restarted, pod by pod", start.elapsed().as_secs_f64());
    let (accepted, refused) = report(load).await?;
    assert_eq!(refused, json!({}), "nobody was refused");
    let promised = site.nothing_is_lost().await?;
    println!("          {accepted} events were accepted meanwhile, none refused; of {promised} in all none is lost");

    let fewest = async || Ok(site.get("deployment main-worker", "{.spec.replicas}").await? == "1");
    site.soon("one worker is enough again", fewest).await?;
    let events = site.types("kubectl get events --field-selector involvedObject.name=main").await?;
    for reason in ["ScaledUp", "ScaledDown"] {
        assert!(events.contains(reason), "{reason} is told:\n{events}");
    }
    Ok(())
}

/// Killed without a word: its task is done by somebody else, as its second attempt.
async fn worker_in_the_middle_of_its_work(site: &E2eEnv) -> anyhow::Result<()> {
    let sql = "SELECT count(*) FROM tasks WHERE worker IS NOT NULL AND lease_until > now()";
    site.soon("somebody works", async || Ok(site.database.number(sql).await? > 0)).await?;
    let worker: String =
        sqlx::query_scalar("SELECT worker FROM tasks WHERE worker IS NOT NULL ORDER BY lease_until DESC")
            .fetch_one(&site.database.pool)
            .await?;
    let pod = worker.split_once('.').map_or(worker.as_str(), |(pod, _)| pod);
    site.types(&format!("kubectl delete pod {pod} --grace-period=0 --force")).await?;
    site.types("kubectl rollout status deployment/main-worker --timeout=2m").await.map(drop)
}

/// A pod of a StatefulSet, deleted, is there again.
async fn restarted(site: &E2eEnv, pod: &str, namespace: &str) -> anyhow::Result<()> {
    site.types(&format!(
        "kubectl -n {namespace} delete {pod} --grace-period=0 --force
         kubectl -n {namespace} wait --for=condition=Ready {pod} --timeout=2m"
    ))
    .await
    .map(drop)
}

/// Another leads soon.
async fn operator_that_leads(site: &E2eEnv) -> anyhow::Result<()> {
    let holder = async || {
        site.types("kubectl -n pulse-system get lease pulse-operator -o jsonpath={.spec.holderIdentity}").await
    };
    let before = holder().await?;
    let pod = before.split_once('.').map_or(before.as_str(), |(pod, _)| pod);
    site.types(&format!("kubectl -n pulse-system delete pod {pod}")).await?;
    let start = Instant::now();
    let another = async || Ok(!holder().await?.is_empty() && holder().await? != before);
    site.soon("another operator leads", another).await?;
    println!("          another operator leads after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
