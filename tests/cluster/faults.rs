//! Scaling during a burst, and faults under load.

use std::time::Instant;

use serde_json::json;

use crate::e2e_env::{E2eEnv, ExternalApi, report};

/// 400 tasks of 100 events within 5 s; each task takes one second.
const BURST: &str = "--rate 8000 --duration 5s --batch 100 --connections 16 --payload-bytes 60 --event-name sleep:10";
/// Each event takes half a second.
const STEADY: &str = "--rate 40 --duration 60s --event-name sleep:500";

/// Scales out for a burst and in after it, and kills a pod of every kind: no accepted event is lost.
pub(crate) async fn scale_and_kill_pods_under_load(env: &E2eEnv, api: &ExternalApi) -> anyhow::Result<()> {
    env.shell(
        "kubectl patch pulseingest main --type=merge -p '{\"spec\":{\"workers\":{\"concurrency\":4,\"autoscaling\":{
            \"minReplicas\":1,\"maxReplicas\":4,\"target\":{\"backlogPerWorker\":20,\"drainSeconds\":10},
            \"behavior\":{\"scaleUp\":{\"stabilizationWindowSeconds\":0,\"percent\":100,\"workers\":2,\"periodSeconds\":5},
                          \"scaleDown\":{\"stabilizationWindowSeconds\":15,\"percent\":100,\"workers\":4,\"periodSeconds\":5}}}}}}'",
    )
    .await?;
    env.wait_for("main is Ready", async || Ok(env.condition("Ready").await?.starts_with("True/"))).await?;
    let start = Instant::now();
    let (accepted, refused) = report(env.load(api, BURST)?).await?;
    assert_eq!((accepted, refused), (40_000, json!({})));
    let scaled_out = async || Ok(env.get_jsonpath("deployment main-worker", "{.spec.replicas}").await? == "4");
    env.wait_for("there are maxReplicas workers", scaled_out).await?;
    println!("          four workers {:.1} s after the burst began", start.elapsed().as_secs_f64());
    let status = env.shell("kubectl pulse status main").await?;
    println!("{status}");
    assert!(status.contains("ScaledUp"), "{status}");
    env.check_nothing_lost().await?;
    println!("          40,000 events were processed after {:.1} s", start.elapsed().as_secs_f64());

    let load = env.load(api, STEADY)?;
    kill_busy_worker(env).await?;
    println!("          {:.1} s  a busy worker was killed", start.elapsed().as_secs_f64());
    delete_and_wait(env, "pod/redis-0", "data").await?;
    println!("          {:.1} s  Redis was deleted with its data", start.elapsed().as_secs_f64());
    delete_leading_operator(env).await?;
    println!("          {:.1} s  the leading operator was deleted", start.elapsed().as_secs_f64());
    let api_pod = env.pod_name("api").await?;
    env.shell(&format!("kubectl delete pod {api_pod}")).await?;
    env.shell("kubectl rollout status deployment/main-api --timeout=2m").await?;
    println!("          {:.1} s  an API pod was deleted", start.elapsed().as_secs_f64());
    env.shell("kubectl rollout restart deployment/main-api && kubectl rollout status deployment/main-api --timeout=2m")
        .await?;
    println!("          {:.1} s  the API was restarted, pod by pod", start.elapsed().as_secs_f64());
    let (accepted, refused) = report(load).await?;
    assert_eq!(refused, json!({}), "no request was refused");
    let checked = env.check_nothing_lost().await?;
    println!("          {accepted} events were accepted meanwhile, none refused; none of {checked} in total is lost");

    let scaled_in = async || Ok(env.get_jsonpath("deployment main-worker", "{.spec.replicas}").await? == "1");
    env.wait_for("there is one worker again", scaled_in).await?;
    let events = env.shell("kubectl get events --field-selector involvedObject.name=main").await?;
    for reason in ["ScaledUp", "ScaledDown"] {
        assert!(events.contains(reason), "no Event with reason {reason}:\n{events}");
    }
    Ok(())
}

/// Force-deletes the pod of a worker with a running task. Another worker runs the task again, as its second attempt.
async fn kill_busy_worker(env: &E2eEnv) -> anyhow::Result<()> {
    let sql = "SELECT count(*) FROM tasks WHERE worker IS NOT NULL AND lease_until > now()";
    env.wait_for("a worker has a task", async || Ok(env.database.number(sql).await? > 0)).await?;
    let worker: String =
        sqlx::query_scalar("SELECT worker FROM tasks WHERE worker IS NOT NULL ORDER BY lease_until DESC")
            .fetch_one(&env.database.pool)
            .await?;
    let pod = worker.split_once('.').map_or(worker.as_str(), |(pod, _)| pod);
    env.shell(&format!("kubectl delete pod {pod} --grace-period=0 --force")).await?;
    env.shell("kubectl rollout status deployment/main-worker --timeout=2m").await.map(drop)
}

/// Force-deletes a pod of a StatefulSet and waits until its replacement is ready.
async fn delete_and_wait(env: &E2eEnv, pod: &str, namespace: &str) -> anyhow::Result<()> {
    env.shell(&format!(
        "kubectl -n {namespace} delete {pod} --grace-period=0 --force
         kubectl -n {namespace} wait --for=condition=Ready {pod} --timeout=2m"
    ))
    .await
    .map(drop)
}

/// Deletes the pod of the leading operator and waits until another one leads.
async fn delete_leading_operator(env: &E2eEnv) -> anyhow::Result<()> {
    let holder =
        async || env.shell("kubectl -n pulse-system get lease pulse-operator -o jsonpath={.spec.holderIdentity}").await;
    let before = holder().await?;
    let pod = before.split_once('.').map_or(before.as_str(), |(pod, _)| pod);
    env.shell(&format!("kubectl -n pulse-system delete pod {pod}")).await?;
    let start = Instant::now();
    let changed = async || Ok(!holder().await?.is_empty() && holder().await? != before);
    env.wait_for("another operator leads", changed).await?;
    println!("          another operator leads after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
