//! Namespaced installation with Helm 3: no permission outside the namespace, and TLS to both datastores.

use std::collections::BTreeSet;

use pulse_operator::rbac;

use crate::cluster::{Helm, SERIAL};
use crate::e2e_env::E2eEnv;

#[tokio::test(flavor = "multi_thread")]
async fn namespaced_install_has_no_permission_outside_its_namespace() -> anyhow::Result<()> {
    let _serial = SERIAL.lock().await;
    let env = E2eEnv::start("orders", Helm::Three).await?;
    let urls = env.urls(1, true);
    let ca = env.file("ca.crt", env.datastore_ca)?;
    env.shell(&format!(
        "kubectl create secret generic main-database --from-literal=uri='{database}'
         kubectl create secret generic main-redis --from-literal=url='{redis}'
         kubectl create secret generic main-auth --from-literal=secret=\"$(openssl rand -hex 32)\"
         kubectl create secret generic datastores-ca --from-file=ca.crt={ca}
         kubectl apply --server-side -f manifests/crds.yaml
         helm install pulse-operator charts/pulse-operator --set crds.enabled=false --wait
         helm install main charts/pulse-ingest \
             --set database.caSecretRef.name=datastores-ca,redis.caSecretRef.name=datastores-ca
         kubectl wait --for=condition=Ready --timeout=3m pulseingest/main",
        database = urls.database,
        redis = urls.redis,
        ca = ca.display()
    ))
    .await?;
    let api = env.expose_api().await?;
    env.post_event(&api).await?;
    let unencrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE datname = current_database() AND application_name LIKE 'pulse%' AND NOT ssl";
    assert_eq!(env.database.number(unencrypted).await?, 0, "every role's connection is encrypted");
    let check = env.shell("kubectl exec deploy/main-worker -- /pulse check").await?;
    println!("{check}");

    let cluster_wide = env.shell("kubectl get clusterroles,clusterrolebindings -o name | grep pulse || true").await?;
    assert_eq!(cluster_wide.trim(), "", "a cluster-wide permission is granted");
    let granted: BTreeSet<String> = rbac::role(true).rules.unwrap_or_default().iter().flat_map(permissions).collect();
    let all = env.permissions("pulse-operator", &env.namespace).await?;
    let default = env.permissions("default", &env.namespace).await?;
    let additional: BTreeSet<String> = all.difference(&default).cloned().collect();
    assert_eq!(additional, granted, "the operator has exactly the permissions of its Role");
    assert_eq!(
        env.permissions("pulse-operator", "kube-system").await?,
        env.permissions("default", "kube-system").await?
    );
    println!("          {} permissions in its namespace, none elsewhere", granted.len());

    env.shell("helm uninstall pulse-operator --wait && helm uninstall main --wait").await?;
    env.wait_until_deleted().await?;
    env.tear_down().await
}

/// Permissions of a rule, as `resource.group/subresource verb`.
fn permissions(rule: &k8s_openapi::api::rbac::v1::PolicyRule) -> Vec<String> {
    let mut permissions = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            let (kind, sub) =
                resource.split_once('/').map_or((&**resource, String::new()), |(kind, sub)| (kind, format!("/{sub}")));
            let resource = if group.is_empty() { format!("{kind}{sub}") } else { format!("{kind}.{group}{sub}") };
            permissions.extend(rule.verbs.iter().map(|verb| format!("{resource} {verb}")));
        }
    }
    permissions
}
