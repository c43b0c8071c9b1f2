//! The narrow way: Helm 3, one namespace, no right outside of it, and TLS to both datastores.

use std::collections::BTreeSet;

use pulse_operator::rbac;

use crate::cluster::{ALONE, Helm};
use crate::site::E2eEnv;

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_in_one_namespace_needs_nothing_outside_of_it() -> anyhow::Result<()> {
    let _alone = ALONE.lock().await;
    let site = E2eEnv::start("orders", Helm::Three).await?;
    let urls = site.urls(1, true);
    let authority = site.file("ca.crt", site.authority)?;
    site.types(&format!(
        "kubectl create secret generic main-database --from-literal=uri='{database}'
         kubectl create secret generic main-redis --from-literal=url='{redis}'
         kubectl create secret generic main-auth --from-literal=secret=\"$(openssl rand -hex 32)\"
         kubectl create secret generic datastores-ca --from-file=ca.crt={authority}
         kubectl apply --server-side -f manifests/crds.yaml
         helm install pulse-operator charts/pulse-operator --set watch.scope=namespace,crds.enabled=false --wait
         helm install main charts/pulse-ingest \
             --set database.caSecretRef.name=datastores-ca,redis.caSecretRef.name=datastores-ca
         kubectl wait --for=condition=Ready --timeout=3m pulseingest/main",
        database = urls.database,
        redis = urls.redis,
        authority = authority.display()
    ))
    .await?;
    let api = site.open().await?;
    site.first_event(&api).await?;
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE datname = current_database() AND application_name LIKE 'pulse%' AND NOT ssl";
    assert_eq!(site.database.number(encrypted).await?, 0, "every role's connection is encrypted");
    let check = site.types("kubectl exec deploy/main-worker -- /pulse check").await?;
    println!("{check}");

    let wide = site.types("kubectl get clusterroles,clusterrolebindings -o name | grep pulse || true").await?;
    assert_eq!(wide.trim(), "", "no right outside of the namespace");
    let granted: BTreeSet<String> = rbac::role(true).rules.unwrap_or_default().iter().flat_map(lines).collect();
    let (all, everybodys) =
        (site.rights("pulse-operator", &site.namespace).await?, site.rights("default", &site.namespace).await?);
    let more: BTreeSet<String> = all.difference(&everybodys).cloned().collect();
    assert_eq!(more, granted, "the operator may do what its Role says, and no more");
    assert_eq!(site.rights("pulse-operator", "kube-system").await?, site.rights("default", "kube-system").await?);
    println!("          {} rights in its namespace, none elsewhere", granted.len());

    site.types("helm uninstall pulse-operator --wait && helm uninstall main --wait").await?;
    site.gone().await?;
    site.end().await
}

/// `resource.group/subresource verb` for each right of a rule.
fn lines(rule: &k8s_openapi::api::rbac::v1::PolicyRule) -> Vec<String> {
    let mut lines = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            let (kind, sub) =
                resource.split_once('/').map_or((&**resource, String::new()), |(kind, sub)| (kind, format!("/{sub}")));
            let of = if group.is_empty() { format!("{kind}{sub}") } else { format!("{kind}.{group}{sub}") };
            lines.extend(rule.verbs.iter().map(|verb| format!("{of} {verb}")));
        }
    }
    lines
}
