//! Pods that Kubernetes rejects: the conditions name the quota or the policy.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use pulse_tests::operator::OperatorEnv;
use serde_json::json;

/// Time within which a rejection has to be in the status.
const LIMIT: Duration = Duration::from_secs(30);

/// Creates a quota without room for any pod. No quota controller runs, so its status is written here.
async fn forbid_pods(env: &OperatorEnv) -> anyhow::Result<()> {
    let quotas = env.api::<ResourceQuota>();
    let quota = json!({ "metadata": { "name": "no-room" }, "spec": { "hard": { "pods": "0" } } });
    quotas.create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    let status = json!({ "status": { "hard": { "pods": "0" }, "used": { "pods": "0" } } });
    quotas.patch_status("no-room", &PatchParams::default(), &Patch::Merge(&status)).await?;
    Ok(())
}

/// Waits for a condition whose message has `part`.
async fn expect(env: &OperatorEnv, condition: &str, wanted: &str, part: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    env.wait_for_condition("main", condition, wanted).await?;
    anyhow::ensure!(started.elapsed() < LIMIT, "{condition}: {:?}", started.elapsed());
    let status = env.status("main").await?;
    let found = status["conditions"].as_array().into_iter().flatten().find(|found| found["type"] == condition);
    anyhow::ensure!(found.is_some_and(|found| found["message"].to_string().contains(part)), "{status:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn quota_without_room_is_named_for_the_job_and_for_every_role() -> anyhow::Result<()> {
    let env = OperatorEnv::with_controllers("quota").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    forbid_pods(&env).await?;
    env.create("main", json!({})).await?;
    expect(&env, "Migrated", "False/MigrationPodNotStarting", "exceeded quota: no-room").await?;

    env.api::<ResourceQuota>().delete("no-room", &DeleteParams::default()).await?;
    env.finish_migration("main").await?;
    env.wait_for_condition("main", "Migrated", "True/UpToDate").await?;
    forbid_pods(&env).await?;
    env.patch_spec("main", json!({ "workers": { "replicas": 3 }, "api": { "replicas": 4 } })).await?;
    expect(&env, "ScalingLimited", "True/PodsRejected", "exceeded quota: no-room").await?;
    expect(&env, "Ready", "False/PodsRejected", "exceeded quota: no-room").await?;
    expect(&env, "Available", "False/NoApiPods", "exceeded quota: no-room").await
}
