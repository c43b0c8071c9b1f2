//! The end of a `PulseIngest`, with Kubernetes' own controllers: nothing hangs, whether the operator runs or not.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use pulse_tests::eventually;
use pulse_tests::operator::{OperatorEnv, SOON};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_needs_no_operator() -> anyhow::Result<()> {
    let bench = OperatorEnv::with_controllers("deletion").await?;
    let operator = bench.operator(&[]).await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    bench.create("main", json!({})).await?;
    bench.migrate("main").await?;
    let exists = async || Ok(bench.all::<Deployment>().list(&ListParams::default()).await?.items.len() == 3);
    eventually("the Deployments exist", SOON, exists).await?;
    assert_eq!(operator.stop().await?, 0);
    bench.instances().delete("main", &DeleteParams::default()).await?;
    let gone = async || {
        let instances = bench.instances().list(&ListParams::default()).await?.items.len();
        let deployments = bench.all::<Deployment>().list(&ListParams::default()).await?.items.len();
        Ok(instances + deployments == 0)
    };
    eventually("all is gone", SOON * 2, gone).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_ends_with_all_that_is_in_it() -> anyhow::Result<()> {
    let bench = OperatorEnv::with_controllers("ending").await?;
    let _operator = bench.operator(&[]).await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    bench.create("main", json!({})).await?;
    bench.migrate("main").await?;
    let exists = async || Ok(bench.all::<Deployment>().list(&ListParams::default()).await?.items.len() == 3);
    eventually("the Deployments exist", SOON, exists).await?;
    let namespaces: Api<Namespace> = Api::all(bench.client.clone());
    namespaces.delete(&bench.namespace, &DeleteParams::default()).await?;
    let gone = async || Ok(namespaces.get_opt(&bench.namespace).await?.is_none());
    eventually("the namespace is gone", SOON * 3, gone).await
}
