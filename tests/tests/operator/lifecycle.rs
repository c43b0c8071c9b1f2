//! The life of one `PulseIngest`: created, migrated, rolled out, upgraded, and failing.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, PostParams};
use pulse_tests::operator::{OperatorEnv, TIMEOUT};
use pulse_tests::{Client, eventually};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn instance_becomes_ready_after_its_migration() -> anyhow::Result<()> {
    let env = OperatorEnv::start("ready").await?;
    let operator = env.start_operator(&[]).await?;
    env.create("main", json!({})).await?;
    env.wait_for_condition("main", "Reconciling", "True/WaitingForReference").await?;
    env.create_secrets("redis://127.0.0.1:1").await?;

    let job = env.wait_for_job("main-migrate-").await?;
    env.wait_for_condition("main", "Migrated", "False/MigrationRunning").await?;
    assert!(
        env.api::<Deployment>().list(&ListParams::default()).await?.items.is_empty(),
        "no Deployment before the migration has succeeded"
    );
    env.finish_job(&job, 0, pulse_tests::operator::MIGRATED).await?;
    env.wait_for_condition("main", "Migrated", "True/UpToDate").await?;
    env.wait_for_condition("main", "Ready", "False/RolloutInProgress").await?;
    env.finish_rollout("main").await?;
    env.wait_for_condition("main", "Ready", "True/AsExpected").await?;
    env.wait_for_condition("main", "Available", "True").await?;
    env.wait_for_condition("main", "Reconciling", "").await?;
    env.wait_for_events("main", &["ReferenceMissing", "MigrationStarted", "MigrationSucceeded", "Ready"]).await?;
    let expires_after_a_day = async || {
        let jobs = env.api::<Job>().list(&ListParams::default()).await?;
        Ok(jobs
            .items
            .iter()
            .all(|job| job.spec.as_ref().is_some_and(|spec| spec.ttl_seconds_after_finished == Some(86_400))))
    };
    eventually("the finished Job expires after a day", TIMEOUT, expires_after_a_day).await?;
    let admin = Client::new(&operator.admin, "");
    for probe in ["/livez", "/readyz"] {
        assert_eq!(admin.get(probe).await?.status, 200, "{probe}");
    }
    let metrics = admin.get("/metrics").await?.text;
    for sample in [
        "pulse_operator_leader 1",
        "pulse_operator_reconciles_total{result=\"ok\"}",
        "pulse_operator_reconcile_seconds_count",
        "pulse_operator_api_requests_total{verb=\"patch\",resource=\"jobs\",code=\"201\"}",
        "pulse_operator_watch_age_seconds{kind=\"pulseingests\"}",
        "pulse_operator_workers_desired{",
        "pulse_operator_workers_ready{",
    ] {
        assert!(metrics.contains(sample), "{sample} is not in {metrics}");
    }
    assert_eq!(env.api::<PodDisruptionBudget>().list(&ListParams::default()).await?.items.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_migration_keeps_the_old_version_managed() -> anyhow::Result<()> {
    let env = OperatorEnv::start("upgrade").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.install("main", json!({})).await?;

    env.patch_spec("main", json!({ "image": { "tag": "0.2.0" }, "workers": { "replicas": 3 } })).await?;
    let job = env.wait_for_job("main-migrate-").await?;
    env.finish_job(&job, 20, "not migrated: migration 1 was applied with another checksum").await?;
    env.wait_for_condition("main", "Stalled", "True/MigrationFailed").await?;
    env.wait_for_condition("main", "Available", "True").await?;
    env.wait_for_condition("main", "Ready", "False/MigrationFailed").await?;
    assert_eq!(env.image("main-api").await?, "localhost/pulse:0.1.0");
    let scaled =
        async || Ok(env.api::<Deployment>().get("main-worker").await?.spec.and_then(|spec| spec.replicas) == Some(3));
    eventually("the old version still scales", TIMEOUT, scaled).await?;

    env.patch_spec("main", json!({ "image": { "tag": "0.2.1" } })).await?;
    env.finish_migration("main").await?;
    let rolls = async || Ok(env.image("main-api").await? == "localhost/pulse:0.2.1");
    eventually("the fixed version rolls out", TIMEOUT, rolls).await?;
    env.finish_rollout("main").await?;
    env.wait_for_condition("main", "Ready", "True/AsExpected").await
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_deployment_is_not_touched() -> anyhow::Result<()> {
    let env = OperatorEnv::start("conflict").await?;
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "main-api" },
        "spec": {
            "replicas": 7, "selector": { "matchLabels": { "a": "b" } },
            "template": {
                "metadata": { "labels": { "a": "b" } },
                "spec": { "containers": [{ "name": "x", "image": "foreign" }] },
            },
        },
    }))?;
    let before = env.api::<Deployment>().create(&PostParams::default(), &deployment).await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.create("main", json!({})).await?;
    env.finish_migration("main").await?;
    env.wait_for_condition("main", "Stalled", "True/NameConflict").await?;
    let after = env.api::<Deployment>().get("main-api").await?;
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_secrets_of_the_operator_are_set_on_every_pod() -> anyhow::Result<()> {
    let env = OperatorEnv::start("pull").await?;
    let _operator = env.start_operator(&["--pull-secret", "mirror", "--pull-secret", "own"]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.install("main", json!({ "image": { "pullSecrets": [{ "name": "own" }] } })).await?;
    let wanted = json!([{ "name": "own" }, { "name": "mirror" }]);
    let jobs = serde_json::to_value(env.api::<Job>().list(&ListParams::default()).await?.items)?;
    let deployments = serde_json::to_value(env.api::<Deployment>().list(&ListParams::default()).await?.items)?;
    let objects: Vec<&serde_json::Value> =
        [&jobs, &deployments].into_iter().filter_map(|list| list.as_array()).flatten().collect();
    assert_eq!(objects.len(), 4, "one migration Job and three Deployments");
    for object in objects {
        assert_eq!(object["spec"]["template"]["spec"]["imagePullSecrets"], wanted, "{object}");
    }
    Ok(())
}
