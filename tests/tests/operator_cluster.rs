//! One operator for a whole cluster, with the rights of `rbac.rs` and no others.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::Api;
use kube::api::{ListParams, PostParams};
use pulse_tests::operator::{OperatorEnv, OperatorProcess};
use serde_json::{Value, json};

/// Binds a role to the operator's service account.
fn binding(role_kind: &str, namespace: &str) -> Value {
    json!({
        "metadata": { "name": "pulse-operator" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": "pulse-operator" },
        "subjects": [{ "kind": "ServiceAccount", "name": "pulse-operator", "namespace": namespace }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_one_name_in_two_namespaces_do_not_meet() -> anyhow::Result<()> {
    let (home, one, other) =
        (OperatorEnv::start("home").await?, OperatorEnv::start("one").await?, OperatorEnv::start("other").await?);
    let account = home.plane.service_account(&home.namespace, "pulse-operator").await?;
    let params = PostParams::default();
    Api::<ClusterRole>::all(home.client.clone()).create(&params, &pulse_operator::rbac::cluster_role()).await?;
    let bound: ClusterRoleBinding = serde_json::from_value(binding("ClusterRole", &home.namespace))?;
    Api::<ClusterRoleBinding>::all(home.client.clone()).create(&params, &bound).await?;
    home.all::<Role>().create(&params, &pulse_operator::rbac::role(false)).await?;
    let bound: RoleBinding = serde_json::from_value(binding("Role", &home.namespace))?;
    home.all::<RoleBinding>().create(&params, &bound).await?;

    let folder = tempfile::tempdir()?;
    let operator = OperatorProcess::of_cluster(&account, &home.namespace, folder.path())?;
    for bench in [&one, &other] {
        bench.secrets("redis://127.0.0.1:1").await?;
    }
    tokio::try_join!(one.installed("main", json!({})), other.installed("main", json!({ "api": { "replicas": 1 } })))?;
    assert_eq!(one.status("main").await?["api"]["desired"], 2);
    assert_eq!(other.status("main").await?["api"]["desired"], 1);
    let key = home.all::<Secret>().list(&ListParams::default()).await?;
    assert_eq!(key.items.len(), 1, "the key of digests is in the operator's own namespace");
    assert!(!operator.output()?.contains("forbidden"), "{}", operator.output()?);
    Ok(())
}
