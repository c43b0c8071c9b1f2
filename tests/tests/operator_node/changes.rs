//! What restarts pods and what does not, and who else may decide a number.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{ListParams, PostParams};
use pulse_tests::operator::OperatorProcess;
use pulse_tests::{Client, token};
use serde_json::json;

use crate::site::NodeEnv;

#[tokio::test(flavor = "multi_thread")]
async fn only_what_concerns_a_pod_restarts_it() -> anyhow::Result<()> {
    let site = NodeEnv::start("changes").await?;
    let operator = site.operator()?;
    site.apply(json!({})).await?;
    site.wait_for("Ready").await?;

    a_secret_rolls_the_roles_that_use_it(&site).await?;
    let operator = a_restart_of_the_operator_changes_nothing(&site, operator).await?;
    somebody_else_scales(&site, &operator).await
}

async fn a_secret_rolls_the_roles_that_use_it(site: &NodeEnv) -> anyhow::Result<()> {
    let before = site.uids().await?;
    site.secret("main-auth", "secret", "another-secret-for-tests-of-32-bytes-or-more").await?;
    let rolled = async || {
        let (wanted, ready, _) = site.deployment("api").await?;
        let now = site.uids().await?;
        Ok(wanted == ready && now["api"].len() == 2 && now["api"].iter().all(|uid| !before["api"].contains(uid)))
    };
    site.soon("the API is rolled", rolled).await?;
    site.wait_for("Ready").await?;
    let after = site.uids().await?;
    assert_eq!((&after["worker"], &after["scheduler"]), (&before["worker"], &before["scheduler"]));
    let answer = Client::new(&site.api_url().await?, &token("tester", None)).get("/api/v1/events").await?;
    assert_eq!(answer.status, 401, "tokens of the old secret are worth nothing now: {}", answer.text);
    Ok(())
}

async fn a_restart_of_the_operator_changes_nothing(
    site: &NodeEnv,
    operator: OperatorProcess,
) -> anyhow::Result<OperatorProcess> {
    let generations = async || {
        let deployments = site.all::<Deployment>().list(&ListParams::default()).await?.items;
        anyhow::Ok(deployments.into_iter().map(|it| (it.metadata.name, it.metadata.generation)).collect::<Vec<_>>())
    };
    let (uids, before) = (site.uids().await?, generations().await?);
    anyhow::ensure!(operator.stop().await? == 0, "the operator ends well");
    let operator = site.operator()?;
    site.soon("the new operator has looked at it", async || looked(&operator, 3.0).await).await?;
    assert_eq!(generations().await?, before, "no Deployment was changed");
    assert_eq!(site.uids().await?, uids, "no pod was restarted");
    Ok(operator)
}

async fn somebody_else_scales(site: &NodeEnv, operator: &OperatorProcess) -> anyhow::Result<()> {
    site.change(json!({ "workers": { "autoscaling": { "mode": "External", "maxReplicas": 10 } } })).await?;
    site.kubectl(&["scale", "pi/main", "--replicas=3"]).await?;
    let three = async || Ok(site.deployment("worker").await?.1 == 3);
    site.soon("the object's scale is the workers'", three).await?;
    let scale = site.kubectl(&["get", "pi/main", "--subresource=scale", "-o", "jsonpath={.status}"]);
    let scale = scale.await?;
    assert!(scale.contains(r#""replicas":3"#) && scale.contains("component=worker"), "{scale}");

    let hands_off = r#"[{ "op": "replace", "path": "/spec/api/replicas", "value": null }]"#;
    site.kubectl(&["patch", "pi/main", "--type=json", "-p", hands_off]).await?;
    site.kubectl(&["scale", "deployment/main-api", "--replicas=3"]).await?;
    let three = async || Ok(site.deployment("api").await?.1 == 3);
    site.soon("the API is scaled", three).await?;
    let seen = rounds(operator).await?;
    site.soon("the operator has looked again", async || looked(operator, seen + 3.0).await).await?;
    assert_eq!(site.deployment("api").await?.0, 3, "and left it alone");
    autoscalers_scale(site).await?;
    site.wait_for("Ready").await
}

/// HorizontalPodAutoscalers, of the object's workers and of the API's Deployment. They need no metrics to hold a least
/// number.
async fn autoscalers_scale(site: &NodeEnv) -> anyhow::Result<()> {
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
        site.all::<HorizontalPodAutoscaler>().create(&PostParams::default(), &autoscaler).await?;
    }
    let four = async || Ok(site.deployment("worker").await?.1 == 4 && site.deployment("api").await?.1 == 4);
    site.soon("both are scaled to four", four).await
}

/// Whether the operator has gone through so many rounds.
async fn looked(operator: &OperatorProcess, count: f64) -> anyhow::Result<bool> {
    Ok(rounds(operator).await? >= count)
}

async fn rounds(operator: &OperatorProcess) -> anyhow::Result<f64> {
    let text = Client::new(&operator.admin, "").get("/metrics").await?.text;
    let samples =
        text.lines().filter(|line| line.starts_with("pulse_operator_reconciles_total{") && line.contains("ok"));
    Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
