//! Deletion with Kubernetes' own controllers: of a `PulseIngest`, with and without a running operator, and of Jobs.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use std::time::Instant;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use pulse_tests::eventually;
use pulse_tests::operator::{OperatorEnv, TIMEOUT};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn deletion_needs_no_operator() -> anyhow::Result<()> {
    let env = OperatorEnv::with_controllers("deletion").await?;
    let operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.create("main", json!({})).await?;
    env.finish_migration("main").await?;
    let exists = async || Ok(env.api::<Deployment>().list(&ListParams::default()).await?.items.len() == 3);
    eventually("the Deployments exist", TIMEOUT, exists).await?;
    assert_eq!(operator.stop().await?, 0);
    env.instances().delete("main", &DeleteParams::default()).await?;
    let deleted = async || {
        let instances = env.instances().list(&ListParams::default()).await?.items.len();
        let deployments = env.api::<Deployment>().list(&ListParams::default()).await?.items.len();
        Ok(instances + deployments == 0)
    };
    eventually("the object and its Deployments are deleted", TIMEOUT * 2, deleted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_deletion_removes_all_objects() -> anyhow::Result<()> {
    let env = OperatorEnv::with_controllers("ending").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.create("main", json!({})).await?;
    env.finish_migration("main").await?;
    let exists = async || Ok(env.api::<Deployment>().list(&ListParams::default()).await?.items.len() == 3);
    eventually("the Deployments exist", TIMEOUT, exists).await?;
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    namespaces.delete(&env.namespace, &DeleteParams::default()).await?;
    let deleted = async || Ok(namespaces.get_opt(&env.namespace).await?.is_none());
    eventually("the namespace is deleted", TIMEOUT * 3, deleted).await
}

#[tokio::test(flavor = "multi_thread")]
async fn superseded_job_without_a_started_container_is_deleted() -> anyhow::Result<()> {
    let env = OperatorEnv::with_controllers("superseded").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.create("main", json!({ "image": { "tag": "0.1.O" } })).await?;
    let first = env.wait_for_job("main-migrate-").await?.name_any();
    let jobs = env.api::<Job>();
    let is_active = async || Ok(jobs.get(&first).await?.status.is_some_and(|status| status.active == Some(1)));
    eventually("the Job has a pod", TIMEOUT, is_active).await?;
    let corrected = Instant::now();
    env.patch_spec("main", json!({ "image": { "tag": "0.1.0" } })).await?;
    let next = async || {
        let names: Vec<String> = jobs.list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
        Ok(names.len() == 1 && names[0] != first)
    };
    eventually("the next Job has replaced it", TIMEOUT, next).await?;
    println!("replaced after {:.1?}", corrected.elapsed());
    env.finish_migration("main").await?;
    let rolls = async || Ok(env.image("main-api").await.is_ok_and(|image| image == "localhost/pulse:0.1.0"));
    eventually("the right image rolls out", TIMEOUT, rolls).await
}
