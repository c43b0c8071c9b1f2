//! The console of an instance: switched on and off, and what the operator writes for it.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use pulse_tests::eventually;
use pulse_tests::operator::{OperatorEnv, TIMEOUT};
use serde_json::{Value, json};

const NAME: &str = "main-console";

/// The kinds of the console's objects that exist.
async fn kinds(env: &OperatorEnv) -> anyhow::Result<Vec<&'static str>> {
    let found = [
        ("ConfigMap", env.api::<ConfigMap>().get_opt(NAME).await?.is_some()),
        ("Deployment", env.api::<Deployment>().get_opt(NAME).await?.is_some()),
        ("PodDisruptionBudget", env.api::<PodDisruptionBudget>().get_opt(NAME).await?.is_some()),
        ("Service", env.api::<Service>().get_opt(NAME).await?.is_some()),
        ("ServiceAccount", env.api::<ServiceAccount>().get_opt(NAME).await?.is_some()),
    ];
    Ok(found.into_iter().filter(|(_, exists)| *exists).map(|(kind, _)| kind).collect())
}

async fn wait_for_kinds(env: &OperatorEnv, wanted: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("the console has {wanted:?}"), TIMEOUT, async || Ok(kinds(env).await? == wanted)).await
}

/// The decisions in the ConfigMap; null without one.
async fn decisions(env: &OperatorEnv) -> anyhow::Result<Value> {
    let found = env.api::<ConfigMap>().get_opt(NAME).await?;
    let text = found.and_then(|found| found.data?.remove("decisions.json"));
    Ok(text.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default())
}

/// Waits until the ConfigMap has all conditions of the status, and the images of its revisions.
async fn wait_for_decisions(env: &OperatorEnv) -> anyhow::Result<()> {
    let is_copied = async || {
        let (status, decisions) = (env.status("main").await?, decisions(env).await?);
        let brief = |rows: &Value, name: &str, since: &str| -> Vec<Value> {
            let rows = rows.as_array().into_iter().flatten();
            rows.map(|row| json!([row[name], row["status"], row["reason"], row[since]])).collect()
        };
        let same = brief(&status["conditions"], "type", "lastTransitionTime")
            == brief(&decisions["conditions"], "name", "since");
        Ok(same && status["activeRevision"]["image"] == decisions["active"])
    };
    eventually("the decisions are those of the status", TIMEOUT, is_copied).await
}

fn writes_of_config_maps(env: &OperatorEnv) -> usize {
    env.proxy.count(|logged| logged.call.resource == "configmaps" && logged.call.writes())
}

#[tokio::test(flavor = "multi_thread")]
async fn console_objects_come_and_go_with_the_switch() -> anyhow::Result<()> {
    let env = OperatorEnv::start("console").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    assert_eq!(kinds(&env).await?, [""; 0], "off by default");
    assert_eq!(env.status("main").await?["console"], Value::Null);
    let reads = env.proxy.count(|logged| logged.call.resource == "configmaps");
    assert_eq!(reads, 0, "without a console, no ConfigMap is read");

    env.patch_spec("main", json!({ "console": { "enabled": true, "replicas": 2 } })).await?;
    wait_for_kinds(&env, &["ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"]).await?;
    env.wait_for_condition("main", "Ready", "False/RolloutInProgress").await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    assert_eq!(env.status("main").await?["console"]["summary"], "2/2");
    let map = env.api::<ConfigMap>().get(NAME).await?;
    assert_eq!(map.owner_references()[0].name, "main");
    assert_eq!(
        env.api::<Service>().get(NAME).await?.spec.and_then(|spec| spec.ports).map(|ports| ports[0].port),
        Some(5555)
    );

    env.patch_spec("main", json!({ "stopped": true })).await?;
    let stopped = async || Ok(env.replicas(NAME).await? == 0);
    eventually("a stopped instance has no console pods", TIMEOUT, stopped).await?;
    env.patch_spec("main", json!({ "stopped": false, "console": { "enabled": false } })).await?;
    env.with_simulator(wait_for_kinds(&env, &[])).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    assert_eq!(env.status("main").await?["console"], Value::Null);
    let others = env.api::<Deployment>().list(&ListParams::default()).await?.items;
    assert_eq!(
        others.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["main-api", "main-scheduler", "main-worker"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_written_once_for_each_change() -> anyhow::Result<()> {
    let env = OperatorEnv::start("decisions").await?;
    let operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.create("main", json!({ "console": { "enabled": true } })).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    wait_for_decisions(&env).await?;
    assert_eq!(decisions(&env).await?["active"], "localhost/pulse:0.1.0");
    assert_eq!(decisions(&env).await?["migration"]["state"], "Done");

    // The conditions about Redis settle with the first samples.
    let settled = async || Ok(env.condition("main", "QueueReachable").await?.starts_with("False/"));
    eventually("the queue is reported", TIMEOUT, settled).await?;
    wait_for_decisions(&env).await?;
    let (before, reconciles) = (writes_of_config_maps(&env), operator.reconcile_count().await);
    let passed = async || Ok(operator.reconcile_count().await >= reconciles + 5);
    eventually("five more reconciles", TIMEOUT, passed).await?;
    assert_eq!(writes_of_config_maps(&env), before, "nothing was decided, and nothing is written");

    let mark = json!({ "commonLabels": { "team": "orders" } });
    env.patch_spec("main", mark).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    wait_for_decisions(&env).await?;
    assert!(writes_of_config_maps(&env) > before, "the rollout was decided");

    // A restarted operator finds the ConfigMap up to date.
    assert_eq!(operator.stop().await?, 0);
    wait_for_decisions(&env).await?;
    let version = env.api::<ConfigMap>().get(NAME).await?.resource_version();
    let operator = env.start_operator(&[]).await?;
    let passed = async || Ok(operator.reconcile_count().await >= 3);
    eventually("three reconciles", TIMEOUT, passed).await?;
    assert_eq!(env.api::<ConfigMap>().get(NAME).await?.resource_version(), version);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn config_map_of_another_owner_is_not_touched() -> anyhow::Result<()> {
    let env = OperatorEnv::start("foreign-map").await?;
    let foreign: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": NAME }, "data": { "mine": "1" } }))?;
    let before = env.api::<ConfigMap>().create(&PostParams::default(), &foreign).await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.create("main", json!({ "console": { "enabled": true } })).await?;
    env.with_simulator(env.wait_for_condition("main", "Stalled", "True/NameConflict")).await?;
    env.patch_spec("main", json!({ "console": { "enabled": false } })).await?;
    env.with_simulator(wait_for_kinds(&env, &["ConfigMap"])).await?;
    let after = env.api::<ConfigMap>().get(NAME).await?;
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version);

    // With the name free, the console gets its decisions.
    env.api::<ConfigMap>().delete(NAME, &DeleteParams::default()).await?;
    env.patch_spec("main", json!({ "console": { "enabled": true } })).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    wait_for_decisions(&env).await
}
