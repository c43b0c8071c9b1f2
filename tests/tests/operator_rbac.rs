//! The rights that we print are the rights that the operator uses: none is missing, and none is too many.

#![expect(clippy::print_stdout, reason = "what was measured is worth a look")]

use std::collections::BTreeSet;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use pulse_tests::cluster::{Call, Fault, Proxy};
use pulse_tests::operator::{OperatorEnv, SOON};
use pulse_tests::{Client, eventually};
use serde::de::DeserializeOwned;
use serde_json::json;

/// `group resource verb`.
type Rights = BTreeSet<String>;

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_uses_its_rights_and_needs_no_others() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("rights").await?;
    let account = bench.plane.service_account(&bench.namespace, "operator").await?;
    let role = pulse_operator::rbac::role(true);
    let granted = rights(role.rules.as_deref().unwrap_or_default());
    let name = role.name_any();
    bench.all::<Role>().create(&PostParams::default(), &role).await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": "operator", "namespace": bench.namespace }],
    }))?;
    bench.all::<RoleBinding>().create(&PostParams::default(), &binding).await?;

    let proxy = Proxy::start(&account).await?;
    // An answer that is lost makes it ask what is there.
    let mut lost = Vec::new();
    for kind in ["serviceaccounts", "services", "jobs", "poddisruptionbudgets", "deployments"] {
        let creates = move |call: &Call| call.verb == "create" && call.resource == kind;
        lost.push(proxy.inject_times(1, creates, Fault::LoseAnswer));
        // The watch is late, so that it has to ask.
        let watches = move |call: &Call| call.verb == "watch" && call.resource == kind;
        lost.push(proxy.inject_times(1, watches, Fault::Stale(std::time::Duration::from_secs(9))));
    }
    let operator = bench.operator_as(proxy.access(), &[]).await?;
    bench.served(live(&bench)).await?;
    // Stopped and started again: the Lease is taken over.
    assert_eq!(operator.stop().await?, 0);
    let operator = bench.operator_as(proxy.access(), &[]).await?;
    let admin = Client::new(&operator.admin, "");
    let leads = async || Ok(admin.get("/metrics").await?.text.contains("\npulse_operator_leader 1"));
    eventually("it leads", SOON, leads).await?;
    bench.instances().delete("main", &DeleteParams::default()).await?;
    assert_eq!(operator.stop().await?, 0);

    let log = proxy.log();
    let refused: Rights =
        log.iter().filter(|logged| logged.status == Some(403)).map(|logged| right(&logged.call)).collect();
    assert!(refused.is_empty(), "refused: {refused:?}");
    let used: Rights = log.iter().map(|logged| right(&logged.call)).collect();
    println!("{} rights, in {} calls", used.len(), log.len());
    assert_eq!(used.difference(&granted).collect::<Vec<_>>(), [""; 0], "used, and not granted");
    assert_eq!(granted.difference(&used).collect::<Vec<_>>(), [""; 0], "granted, and not used");
    Ok(())
}

/// From nothing through all that may happen to an object.
async fn live(bench: &OperatorEnv) -> anyhow::Result<()> {
    bench.create("main", json!({ "workers": { "replicas": 3 } })).await?;
    bench.reaches("main", "Reconciling", "True/WaitingForReference").await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    bench.settles("main", SOON * 2).await?;
    // A Secret is missed once more: the same Event again.
    bench.all::<Secret>().delete("main-redis", &DeleteParams::default()).await?;
    bench.reaches("main", "Reconciling", "True/WaitingForReference").await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    bench.settles("main", SOON).await?;

    // Somebody else writes.
    let before = bench.snapshot().await?;
    drift::<ServiceAccount>(bench).await?;
    drift::<Service>(bench).await?;
    drift::<PodDisruptionBudget>(bench).await?;
    eventually("all is as before", SOON, async || Ok(bench.snapshot().await? == before)).await?;

    // Fewer workers: somebody has to go first.
    for number in 0..3 {
        bench.all::<Pod>().create(&PostParams::default(), &worker(number)?).await?;
    }
    let change = json!({ "workers": { "replicas": 1 }, "api": { "replicas": 1 }, "image": { "tag": "0.2.0" } });
    bench.change("main", change).await?;
    bench.settles("main", SOON).await?;
    let marked = async || {
        let pods = bench.all::<Pod>().list(&ListParams::default()).await?;
        let cost = "controller.kubernetes.io/pod-deletion-cost";
        Ok(pods.iter().filter(|pod| pod.annotations().contains_key(cost)).count() == 2)
    };
    eventually("two pods are to go first", SOON, marked).await?;
    let pruned = async || Ok(bench.all::<PodDisruptionBudget>().list(&ListParams::default()).await?.items.is_empty());
    eventually("a single pod has no disruption budget", SOON, pruned).await?;
    bench.all::<Service>().delete("main-api", &DeleteParams::default()).await?;
    let back = async || Ok(bench.all::<Service>().get_opt("main-api").await?.is_some());
    eventually("the Service is back", SOON, back).await
}

async fn drift<K>(bench: &OperatorEnv) -> anyhow::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let label = json!({ "metadata": { "labels": { "app.kubernetes.io/part-of": "theirs" } } });
    bench.all::<K>().patch("main-api", &PatchParams::default(), &Patch::Merge(&label)).await?;
    Ok(())
}

fn worker(number: usize) -> anyhow::Result<Pod> {
    let labels = json!({
        "app.kubernetes.io/name": "pulse", "app.kubernetes.io/instance": "main",
        "app.kubernetes.io/component": "worker", "app.kubernetes.io/managed-by": "pulse-operator",
    });
    Ok(serde_json::from_value(json!({
        "metadata": { "name": format!("main-worker-{number}"), "labels": labels },
        "spec": { "containers": [{ "name": "pulse", "image": "pulse" }] },
    }))?)
}

fn right(call: &Call) -> String {
    let mut parts = call.path.split('/').skip(1);
    let group = if parts.next() == Some("apis") { parts.next().unwrap_or_default() } else { "" };
    format!("{group} {} {}", call.resource, call.verb)
}

fn rights(rules: &[PolicyRule]) -> Rights {
    let mut rights = Rights::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                rights.extend(rule.verbs.iter().map(|verb| format!("{group} {resource} {verb}")));
            }
        }
    }
    rights
}
