//! One operator for all namespaces, with exactly the permissions of `pulse_operator::rbac`.

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::Api;
use kube::api::{ListParams, PostParams};
use pulse_tests::operator::{OperatorEnv, OperatorProcess};
use serde_json::{Value, json};

/// A binding of a role to the operator's service account.
fn binding(role_kind: &str, namespace: &str) -> Value {
    json!({
        "metadata": { "name": "pulse-operator" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": "pulse-operator" },
        "subjects": [{ "kind": "ServiceAccount", "name": "pulse-operator", "namespace": namespace }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_one_name_in_two_namespaces_are_independent() -> anyhow::Result<()> {
    let (home, one, other) =
        (OperatorEnv::start("home").await?, OperatorEnv::start("one").await?, OperatorEnv::start("other").await?);
    let account = home.plane.service_account(&home.namespace, "pulse-operator").await?;
    let params = PostParams::default();
    Api::<ClusterRole>::all(home.client.clone()).create(&params, &pulse_operator::rbac::cluster_role()).await?;
    let bound: ClusterRoleBinding = serde_json::from_value(binding("ClusterRole", &home.namespace))?;
    Api::<ClusterRoleBinding>::all(home.client.clone()).create(&params, &bound).await?;
    home.api::<Role>().create(&params, &pulse_operator::rbac::role(false)).await?;
    let bound: RoleBinding = serde_json::from_value(binding("Role", &home.namespace))?;
    home.api::<RoleBinding>().create(&params, &bound).await?;

    let folder = tempfile::tempdir()?;
    let operator = OperatorProcess::start_cluster_wide(&account, &home.namespace, folder.path())?;
    for env in [&one, &other] {
        env.create_secrets("redis://127.0.0.1:1").await?;
    }
    tokio::try_join!(one.install("main", json!({})), other.install("main", json!({ "api": { "replicas": 1 } })))?;
    assert_eq!(one.status("main").await?["api"]["desired"], 2);
    assert_eq!(other.status("main").await?["api"]["desired"], 1);
    let key = home.api::<Secret>().list(&ListParams::default()).await?;
    assert_eq!(key.items.len(), 1, "the Secret with the digest key is in the operator's namespace");
    assert!(!operator.output()?.contains("forbidden"), "{}", operator.output()?);
    Ok(())
}
