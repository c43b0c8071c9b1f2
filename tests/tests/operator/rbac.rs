//! The generated Role grants exactly the permissions that the operator uses.

#![expect(clippy::print_stdout, reason = "the test prints what it measures")]

use std::collections::BTreeSet;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use pulse_tests::cluster::{Fault, Proxy, RequestInfo};
use pulse_tests::operator::{OperatorEnv, TIMEOUT};
use pulse_tests::{Client, eventually};
use serde::de::DeserializeOwned;
use serde_json::json;

/// Permissions as `group resource verb`.
type Permissions = BTreeSet<String>;

#[tokio::test(flavor = "multi_thread")]
async fn operator_uses_all_granted_permissions_and_needs_no_others() -> anyhow::Result<()> {
    let env = OperatorEnv::start("permissions").await?;
    let account = env.plane.service_account(&env.namespace, "operator").await?;
    let role = pulse_operator::rbac::role(true);
    let granted = permissions(role.rules.as_deref().unwrap_or_default());
    let name = role.name_any();
    env.api::<Role>().create(&PostParams::default(), &role).await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": "operator", "namespace": env.namespace }],
    }))?;
    env.api::<RoleBinding>().create(&PostParams::default(), &binding).await?;

    let proxy = Proxy::start(&account).await?;
    // A lost answer makes the operator read the object that it created.
    let mut faults = Vec::new();
    // The one of the ConfigMap is found by its name.
    let creates = |call: &RequestInfo| call.verb == "patch" && call.resource == "configmaps";
    faults.push(proxy.inject_times(1, creates, Fault::LoseResponse));
    for kind in ["serviceaccounts", "services", "jobs", "poddisruptionbudgets", "deployments"] {
        let creates = move |call: &RequestInfo| call.verb == "patch" && call.resource == kind;
        faults.push(proxy.inject_times(1, creates, Fault::LoseResponse));
        // A late watch forces the operator to read the object.
        let watches = move |call: &RequestInfo| call.verb == "watch" && call.resource == kind;
        faults.push(proxy.inject_times(1, watches, Fault::Stale(std::time::Duration::from_secs(9))));
    }
    let operator = env.start_operator_via(proxy.access(), &[]).await?;
    create_and_correct(&env).await?;
    env.with_simulator(run_lifecycle(&env)).await?;
    // Without the simulator, the Job has no pod: the operator looks for the reason.
    env.patch_spec("main", json!({ "image": { "tag": "0.3.0" } })).await?;
    let listed = async || Ok(proxy.count(|logged| logged.call.resource == "events" && logged.call.verb == "list") > 0);
    eventually("the Events of the Job are listed", TIMEOUT, listed).await?;
    // A restarted operator takes over the Lease.
    assert_eq!(operator.stop().await?, 0);
    let operator = env.start_operator_via(proxy.access(), &[]).await?;
    let admin = Client::new(&operator.admin, "");
    let leads = async || Ok(admin.get("/metrics").await?.text.contains("\npulse_operator_leader 1"));
    eventually("the operator leads", TIMEOUT, leads).await?;
    env.instances().delete("main", &DeleteParams::default()).await?;
    assert_eq!(operator.stop().await?, 0);

    // Every account may read the OpenAPI document, which is not a resource.
    let log: Vec<_> = proxy.log().into_iter().filter(|logged| !logged.call.resource.is_empty()).collect();
    let refused: Permissions =
        log.iter().filter(|logged| logged.status == Some(403)).map(|logged| permission(&logged.call)).collect();
    assert!(refused.is_empty(), "refused: {refused:?}");
    let mut used: Permissions = log.iter().map(|logged| permission(&logged.call)).collect();
    // Server-side apply that creates an object also needs `create`.
    let created = log.iter().filter(|logged| logged.call.verb == "patch" && logged.status == Some(201));
    used.extend(created.map(|logged| permission(&RequestInfo { verb: "create".into(), ..logged.call.clone() })));
    println!("{} permissions, in {} calls", used.len(), log.len());
    assert_eq!(used.difference(&granted).collect::<Vec<_>>(), [""; 0], "used, and not granted");
    assert_eq!(granted.difference(&used).collect::<Vec<_>>(), [""; 0], "granted, and not used");
    Ok(())
}

/// Creates an instance without Secrets, and then with another image.
async fn create_and_correct(env: &OperatorEnv) -> anyhow::Result<()> {
    env.create("main", json!({ "workers": { "replicas": 3 }, "console": { "enabled": true } })).await?;
    env.wait_for_condition("main", "Reconciling", "True/WaitingForReference").await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    // A Job without a pod is deleted when it is superseded.
    env.wait_for_job("main-migrate-").await?;
    env.patch_spec("main", json!({ "image": { "tag": "0.1.1" } })).await?;
    env.wait_for_deleted_job().await
}

/// Repairs, scales and upgrades the instance, so that the operator uses the other permissions.
async fn run_lifecycle(env: &OperatorEnv) -> anyhow::Result<()> {
    env.wait_until_reconciled("main", TIMEOUT * 2).await?;
    // A Secret is missing for a second time, which updates the existing Event.
    env.api::<Secret>().delete("main-redis", &DeleteParams::default()).await?;
    env.wait_for_condition("main", "Reconciling", "True/WaitingForReference").await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.wait_until_reconciled("main", TIMEOUT).await?;

    // Another client changes the objects.
    let before = env.snapshot().await?;
    change_label::<ServiceAccount>(env).await?;
    change_label::<Service>(env).await?;
    change_label::<PodDisruptionBudget>(env).await?;
    eventually("the objects are as before", TIMEOUT, async || Ok(env.snapshot().await? == before)).await?;

    // With fewer workers, the operator sets the deletion cost of the pods to remove.
    for number in 0..3 {
        env.api::<Pod>().create(&PostParams::default(), &worker_pod(number)?).await?;
    }
    let change = json!({
        "workers": { "replicas": 1 }, "api": { "replicas": 1 }, "console": { "enabled": false }, "image": { "tag": "0.2.0" },
    });
    env.patch_spec("main", change).await?;
    env.wait_until_reconciled("main", TIMEOUT).await?;
    let have_deletion_cost = async || {
        let pods = env.api::<Pod>().list(&ListParams::default()).await?;
        let cost = "controller.kubernetes.io/pod-deletion-cost";
        Ok(pods.iter().filter(|pod| pod.annotations().contains_key(cost)).count() == 2)
    };
    eventually("two pods have a deletion cost", TIMEOUT, have_deletion_cost).await?;
    let pruned = async || Ok(env.api::<PodDisruptionBudget>().list(&ListParams::default()).await?.items.is_empty());
    eventually("a single pod has no disruption budget", TIMEOUT, pruned).await?;
    env.api::<Service>().delete("main-api", &DeleteParams::default()).await?;
    let back = async || Ok(env.api::<Service>().get_opt("main-api").await?.is_some());
    eventually("the Service is back", TIMEOUT, back).await
}

async fn change_label<K>(env: &OperatorEnv) -> anyhow::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let label = json!({ "metadata": { "labels": { "app.kubernetes.io/part-of": "foreign" } } });
    env.api::<K>().patch("main-api", &PatchParams::default(), &Patch::Merge(&label)).await?;
    Ok(())
}

fn worker_pod(number: usize) -> anyhow::Result<Pod> {
    let labels = json!({
        "app.kubernetes.io/name": "pulse", "app.kubernetes.io/instance": "main",
        "app.kubernetes.io/component": "worker", "app.kubernetes.io/managed-by": "pulse-operator",
    });
    Ok(serde_json::from_value(json!({
        "metadata": { "name": format!("main-worker-{number}"), "labels": labels },
        "spec": { "containers": [{ "name": "pulse", "image": "pulse" }] },
    }))?)
}

fn permission(call: &RequestInfo) -> String {
    let mut parts = call.path.split('/').skip(1);
    let group = if parts.next() == Some("apis") { parts.next().unwrap_or_default() } else { "" };
    format!("{group} {} {}", call.resource, call.verb)
}

fn permissions(rules: &[PolicyRule]) -> Permissions {
    let mut permissions = Permissions::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                permissions.extend(rule.verbs.iter().map(|verb| format!("{group} {resource} {verb}")));
            }
        }
    }
    permissions
}
