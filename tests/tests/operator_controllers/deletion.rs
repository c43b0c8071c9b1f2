//! Deletion of a `PulseIngest` with Kubernetes' own controllers: it completes with and without a running operator.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
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
