//! Changes that restart pods and changes that do not, and replicas that another scaler sets.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{ListParams, PostParams};
use pulse_tests::operator::OperatorProcess;
use pulse_tests::{Client, token};
use serde_json::json;

use crate::node_env::NodeEnv;

#[tokio::test(flavor = "multi_thread")]
async fn pods_restart_only_for_changes_that_affect_them() -> anyhow::Result<()> {
    let env = NodeEnv::start("changes").await?;
    let operator = env.start_operator()?;
    env.apply(json!({})).await?;
    env.wait_for_condition("Ready").await?;

    secret_change_rolls_its_roles(&env).await?;
    let operator = operator_restart_changes_nothing(&env, operator).await?;
    external_scalers_set_replicas(&env, &operator).await
}

async fn secret_change_rolls_its_roles(env: &NodeEnv) -> anyhow::Result<()> {
    let before = env.pod_uids().await?;
    env.apply_secret("main-auth", "secret", "another-secret-for-tests-of-32-bytes-or-more").await?;
    let rolled = async || {
        let (wanted, ready, _) = env.deployment("api").await?;
        let now = env.pod_uids().await?;
        Ok(wanted == ready && now["api"].len() == 2 && now["api"].iter().all(|uid| !before["api"].contains(uid)))
    };
    env.eventually("every API pod is replaced", rolled).await?;
    env.wait_for_condition("Ready").await?;
    let after = env.pod_uids().await?;
    assert_eq!((&after["worker"], &after["scheduler"]), (&before["worker"], &before["scheduler"]));
    let answer = Client::new(&env.api_url().await?, &token("tester", None)).get("/api/v1/events").await?;
    assert_eq!(answer.status, 401, "a token signed with the old secret is refused: {}", answer.text);
    Ok(())
}

async fn operator_restart_changes_nothing(env: &NodeEnv, operator: OperatorProcess) -> anyhow::Result<OperatorProcess> {
    let generations = async || {
        let deployments = env.api::<Deployment>().list(&ListParams::default()).await?.items;
        anyhow::Ok(deployments.into_iter().map(|it| (it.metadata.name, it.metadata.generation)).collect::<Vec<_>>())
    };
    let (uids, before) = (env.pod_uids().await?, generations().await?);
    anyhow::ensure!(operator.stop().await? == 0, "the operator exits with 0");
    let operator = env.start_operator()?;
    env.eventually("the new operator has reconciled three times", async || has_reconciled(&operator, 3.0).await)
        .await?;
    assert_eq!(generations().await?, before, "no Deployment was changed");
    assert_eq!(env.pod_uids().await?, uids, "no pod was restarted");
    Ok(operator)
}

async fn external_scalers_set_replicas(env: &NodeEnv, operator: &OperatorProcess) -> anyhow::Result<()> {
    let external = json!({ "autoscaling": { "mode": "External" } });
    let applied = json!({ "api": external, "workers": external });
    env.apply(applied.clone()).await?;
    env.kubectl(&["scale", "pi/main", "--replicas=0"]).await?;
    env.eventually("the scale subresource stops the workers", async || Ok(env.deployment("worker").await?.1 == 0))
        .await?;
    env.kubectl(&["scale", "pi/main", "--replicas=3"]).await?;
    let three = async || Ok(env.deployment("worker").await?.1 == 3);
    env.eventually("the scale subresource sets the workers", three).await?;
    let reported = async || {
        let scale = env.kubectl(&["get", "pi/main", "--subresource=scale", "-o", "jsonpath={.status}"]).await?;
        Ok(scale.contains(r#""replicas":3"#) && scale.contains("component=worker"))
    };
    env.eventually("the scale subresource reports the workers", reported).await?;

    env.kubectl(&["scale", "deployment/main-api", "--replicas=3"]).await?;
    let three = async || Ok(env.deployment("api").await?.1 == 3);
    env.eventually("the API is scaled", three).await?;
    let before = successful_reconciles(operator).await?;
    env.eventually("the operator has reconciled again", async || has_reconciled(operator, before + 3.0).await).await?;
    assert_eq!(env.deployment("api").await?.0, 3, "the operator leaves the replicas alone");
    horizontal_pod_autoscalers_scale(env).await?;
    for concurrency in [8, 12] {
        let mut changed = applied.clone();
        changed["workers"]["concurrency"] = json!(concurrency);
        env.apply(changed).await?;
        let before = successful_reconciles(operator).await?;
        env.eventually("the operator has reconciled it", async || has_reconciled(operator, before + 3.0).await).await?;
        let replicas = (env.deployment("worker").await?.0, env.deployment("api").await?.0);
        assert_eq!(replicas, (4, 4), "another apply leaves the numbers of the autoscalers");
    }
    env.wait_for_condition("Ready").await
}

/// HorizontalPodAutoscalers scale the workers through the object and the API through its Deployment. They need no
/// metrics to enforce `minReplicas`.
async fn horizontal_pod_autoscalers_scale(env: &NodeEnv) -> anyhow::Result<()> {
    for (api_version, kind, name) in
        [("pulseboard.dev/v1alpha1", "PulseIngest", "main"), ("apps/v1", "Deployment", "main-api")]
    {
        let autoscaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "minReplicas": 4, "maxReplicas": 5,
                "scaleTargetRef": { "apiVersion": api_version, "kind": kind, "name": name },
            },
        }))?;
        env.api::<HorizontalPodAutoscaler>().create(&PostParams::default(), &autoscaler).await?;
    }
    let four = async || Ok(env.deployment("worker").await?.1 == 4 && env.deployment("api").await?.1 == 4);
    env.eventually("both are scaled to four", four).await
}

/// Returns true after `count` successful reconciles.
async fn has_reconciled(operator: &OperatorProcess, count: f64) -> anyhow::Result<bool> {
    Ok(successful_reconciles(operator).await? >= count)
}

async fn successful_reconciles(operator: &OperatorProcess) -> anyhow::Result<f64> {
    let text = Client::new(&operator.admin, "").get("/metrics").await?.text;
    let samples =
        text.lines().filter(|line| line.starts_with("pulse_operator_reconciles_total{") && line.contains("ok"));
    Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
