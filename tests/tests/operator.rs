//! One `PulseIngest` from nothing to ready, through upgrades and failures, to its end.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, PostParams};
use pulse_tests::operator::{OperatorEnv, SOON};
use pulse_tests::{Client, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_object_becomes_ready_after_its_migration() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("ready").await?;
    let operator = bench.operator(&[]).await?;
    bench.create("main", json!({})).await?;
    bench.reaches("main", "Reconciling", "True/WaitingForReference").await?;
    bench.secrets("redis://127.0.0.1:1").await?;

    let job = bench.job("main-migrate-").await?;
    bench.reaches("main", "Migrated", "False/MigrationRunning").await?;
    assert!(bench.all::<Deployment>().list(&ListParams::default()).await?.items.is_empty(), "gated by the Job");
    bench.finish_job(&job, 0, pulse_tests::operator::MIGRATED).await?;
    bench.reaches("main", "Migrated", "True/UpToDate").await?;
    bench.reaches("main", "Ready", "False/RolloutInProgress").await?;
    bench.rollout("main").await?;
    bench.reaches("main", "Ready", "True/AsExpected").await?;
    bench.reaches("main", "Available", "True").await?;
    bench.reaches("main", "Reconciling", "").await?;
    bench.tells("main", &["ReferenceMissing", "MigrationStarted", "MigrationSucceeded", "Ready"]).await?;
    let kept = async || {
        let jobs = bench.all::<Job>().list(&ListParams::default()).await?;
        Ok(jobs
            .items
            .iter()
            .all(|job| job.spec.as_ref().is_some_and(|spec| spec.ttl_seconds_after_finished == Some(86_400))))
    };
    eventually("the Job is kept for a day", SOON, kept).await?;
    let admin = Client::new(&operator.admin, "");
    for probe in ["/livez", "/readyz"] {
        assert_eq!(admin.get(probe).await?.status, 200, "{probe}");
    }
    let metrics = admin.get("/metrics").await?.text;
    for sample in [
        "pulse_operator_leader 1",
        "pulse_operator_reconciles_total{result=\"ok\"}",
        "pulse_operator_reconcile_seconds_count",
        "pulse_operator_api_requests_total{verb=\"create\",resource=\"jobs\",code=\"201\"}",
        "pulse_operator_watch_age_seconds{kind=\"pulseingests\"}",
        "pulse_operator_workers_desired{",
        "pulse_operator_workers_ready{",
    ] {
        assert!(metrics.contains(sample), "{sample} is not in {metrics}");
    }
    assert_eq!(bench.all::<PodDisruptionBudget>().list(&ListParams::default()).await?.items.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_migration_leaves_the_old_version_managed() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("upgrade").await?;
    let _operator = bench.operator(&[]).await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    bench.installed("main", json!({})).await?;

    bench.change("main", json!({ "image": { "tag": "0.2.0" }, "workers": { "replicas": 3 } })).await?;
    let job = bench.job("main-migrate-").await?;
    bench.finish_job(&job, 20, "not migrated: migration 1 was applied with another checksum").await?;
    bench.reaches("main", "Stalled", "True/MigrationFailed").await?;
    bench.reaches("main", "Available", "True").await?;
    bench.reaches("main", "Ready", "False/MigrationFailed").await?;
    assert_eq!(bench.image("main-api").await?, "localhost/pulse:0.1.0");
    let scaled =
        async || Ok(bench.all::<Deployment>().get("main-worker").await?.spec.and_then(|spec| spec.replicas) == Some(3));
    eventually("the old version still scales", SOON, scaled).await?;

    bench.change("main", json!({ "image": { "tag": "0.2.1" } })).await?;
    bench.migrate("main").await?;
    let rolls = async || Ok(bench.image("main-api").await? == "localhost/pulse:0.2.1");
    eventually("the fixed version rolls out", SOON, rolls).await?;
    bench.rollout("main").await?;
    bench.reaches("main", "Ready", "True/AsExpected").await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_deployment_is_not_touched() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("conflict").await?;
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "main-api" },
        "spec": {
            "replicas": 7, "selector": { "matchLabels": { "a": "b" } },
            "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "x", "image": "theirs" }] } },
        },
    }))?;
    let before = bench.all::<Deployment>().create(&PostParams::default(), &deployment).await?;
    let _operator = bench.operator(&[]).await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    bench.create("main", json!({})).await?;
    bench.migrate("main").await?;
    bench.reaches("main", "Stalled", "True/NameConflict").await?;
    let after = bench.all::<Deployment>().get("main-api").await?;
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_gets_the_operators_pull_secrets() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("pull").await?;
    let _operator = bench.operator(&["--pull-secret", "mirror", "--pull-secret", "own"]).await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    bench.installed("main", json!({ "image": { "pullSecrets": [{ "name": "own" }] } })).await?;
    let wanted = json!([{ "name": "own" }, { "name": "mirror" }]);
    let jobs = serde_json::to_value(bench.all::<Job>().list(&ListParams::default()).await?.items)?;
    let deployments = serde_json::to_value(bench.all::<Deployment>().list(&ListParams::default()).await?.items)?;
    let objects: Vec<&serde_json::Value> =
        [&jobs, &deployments].into_iter().filter_map(|list| list.as_array()).flatten().collect();
    assert_eq!(objects.len(), 4, "a migration and three roles");
    for object in objects {
        assert_eq!(object["spec"]["template"]["spec"]["imagePullSecrets"], wanted, "{object}");
    }
    Ok(())
}
