//! Applied objects: complete from the first request, with the common metadata, each with a separate back-off, and
//! changed back less and less often when another client fights about them.

#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy as AdmissionPolicy, ValidatingAdmissionPolicyBinding as AdmissionBinding,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use pulse_tests::eventually;
use pulse_tests::operator::{OperatorEnv, TIMEOUT};
use serde_json::{Value, json};

const REDIS: &str = "redis://127.0.0.1:1";

/// Has the API server refuse objects in the test's namespace that do not meet every `rule`, in CEL.
async fn require(env: &OperatorEnv, kinds: Value, rules: &[&str]) -> anyhow::Result<()> {
    let name = format!("{}-{}", env.namespace, rules.len());
    let validations: Vec<Value> = rules.iter().map(|rule| json!({ "expression": rule })).collect();
    let policy: AdmissionPolicy = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "matchConstraints": { "resourceRules": kinds }, "validations": validations },
    }))?;
    let own = json!({ "matchLabels": { "kubernetes.io/metadata.name": env.namespace } });
    let binding: AdmissionBinding = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": {
            "policyName": name, "validationActions": ["Deny"], "matchResources": { "namespaceSelector": own },
        },
    }))?;
    Api::<AdmissionPolicy>::all(env.client.clone()).create(&PostParams::default(), &policy).await?;
    Api::<AdmissionBinding>::all(env.client.clone()).create(&PostParams::default(), &binding).await?;
    Ok(())
}

/// Waits until the API server enforces a policy that refuses this Service.
async fn wait_until_refused(env: &OperatorEnv, labels: Value) -> anyhow::Result<()> {
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": "probe", "labels": labels }, "spec": { "ports": [{ "port": 1 }] },
    }))?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let refused = async || Ok(env.api::<Service>().create(&params, &service).await.is_err());
    eventually("the policy is enforced", TIMEOUT, refused).await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_pass_a_policy_from_the_first_request() -> anyhow::Result<()> {
    let env = OperatorEnv::start("policy").await?;
    let all = json!([
        { "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["CREATE", "UPDATE"] },
        { "apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"], "operations": ["CREATE", "UPDATE"] },
        { "apiGroups": ["policy"], "apiVersions": ["v1"], "resources": ["poddisruptionbudgets"], "operations": ["CREATE", "UPDATE"] },
        { "apiGroups": [""], "apiVersions": ["v1"], "resources": ["services", "serviceaccounts"], "operations": ["CREATE", "UPDATE"] },
    ]);
    let containers = "!has(object.spec) || !has(object.spec.template) || object.spec.template.spec.containers";
    let resources = format!("{containers}.all(c, has(c.resources.requests) && has(c.resources.limits))");
    let probes = "object.kind != 'Deployment' || object.spec.template.spec.containers.all(c, \
                  has(c.livenessProbe) && has(c.readinessProbe))";
    let label = "has(object.metadata.labels) && 'team' in object.metadata.labels";
    let of_pods = "object.kind != 'Deployment' || 'team' in object.spec.template.metadata.labels";
    require(&env, all, &[&resources, probes, label, of_pods]).await?;
    wait_until_refused(&env, json!({ "other": "x" })).await?;

    let _operator = env.start_operator(&[]).await?;
    env.create_secrets(REDIS).await?;
    let common = json!({ "commonLabels": { "team": "orders" }, "commonAnnotations": { "cost": "42" } });
    env.create("main", common).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    let refused = env.proxy.count(|logged| logged.call.writes() && logged.status.is_some_and(|status| status >= 400));
    assert_eq!(refused, 0, "refused writes");

    // Server-side apply owns every field, so removed metadata goes away.
    env.patch_spec("main", json!({ "commonAnnotations": null })).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    for annotations in [
        env.api::<Deployment>().get("main-api").await?.annotations().clone(),
        env.api::<Service>().get("main-api").await?.annotations().clone(),
        env.api::<ServiceAccount>().get("main-api").await?.annotations().clone(),
    ] {
        assert!(!annotations.contains_key("cost"), "{annotations:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_created_at_once_and_stay_with_their_owner() -> anyhow::Result<()> {
    let env = OperatorEnv::start("owned").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets(REDIS).await?;
    env.create("main", json!({ "api": { "replicas": 3 } })).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    let scaled = env.proxy.count(|logged| logged.call.resource == "deployments/scale");
    assert_eq!(scaled, 0, "created with the right number");
    // The second apply does not have the field.
    env.patch_spec("main", json!({ "auth": { "issuer": "other" } })).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    assert_eq!(env.replicas("main-api").await?, 3);
    let found = env.api::<Deployment>().get("main-api").await?;
    let owners = found
        .managed_fields()
        .iter()
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| fields.0["f:spec"]["f:replicas"].is_object()));
    let owners: Vec<_> = owners.filter_map(|entry| entry.manager.clone()).collect();
    assert_eq!(owners, ["pulse-scaler"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_object_holds_only_itself() -> anyhow::Result<()> {
    let env = OperatorEnv::start("refused").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets(REDIS).await?;
    env.create("main", json!({ "workers": { "replicas": 3 } })).await?;
    let budgets = json!([{ "apiGroups": ["policy"], "apiVersions": ["v1"], "resources": ["poddisruptionbudgets"], "operations": ["CREATE", "UPDATE"] }]);
    let services =
        json!([{ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"], "operations": ["CREATE"] }]);
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    require(&env, budgets, &["false"]).await?;
    require(&env, services, &["true", "object.metadata.name != 'probe'"]).await?;
    wait_until_refused(&env, json!({})).await?;
    env.patch_spec("main", json!({ "commonLabels": { "team": "a" } })).await?;
    env.wait_for_condition("main", "Ready", "False/ReconcileFailed").await?;
    // The back-off has grown to 16 s, and a rotated Secret rolls out nevertheless.
    let attempts = |name: &'static str| {
        env.proxy
            .count(|logged| logged.call.resource == name && logged.call.verb == "patch" && logged.status != Some(200))
    };
    eventually("it was tried five times", TIMEOUT, async || Ok(attempts("poddisruptionbudgets") >= 10)).await?;
    let before = env.api::<Deployment>().get("main-api").await?.metadata.generation;
    env.apply_secret("main-auth", "secret", "rotated-0123456789-0123456789-0123456789").await?;
    let rolls = async || Ok(env.api::<Deployment>().get("main-api").await?.metadata.generation > before);
    eventually("the Secret rolls out", Duration::from_secs(12), rolls).await?;
    println!("{} attempts for two budgets", attempts("poddisruptionbudgets"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fight_about_a_field_is_bounded_and_names_the_rival() -> anyhow::Result<()> {
    let env = OperatorEnv::start("fight").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets(REDIS).await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    env.proxy.clear_log();
    let rival = PatchParams { field_manager: Some("meddler".into()), ..PatchParams::default() };
    let selector = json!({ "spec": { "selector": { "app.kubernetes.io/component": "none" } } });
    let meddle = async {
        loop {
            env.api::<Service>().patch("main-api", &rival, &Patch::Merge(&selector)).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        #[expect(unreachable_code, reason = "names the type")]
        anyhow::Ok(())
    };
    tokio::select! {
        result = meddle => result?,
        result = env.wait_for_condition("main", "Ready", "False/Contested") => result?,
    }
    env.wait_for_events("main", &["Contested"]).await?;
    let message = env.status("main").await?.to_string();
    assert!(
        message.contains("Service main-api is changed again and again by") && message.contains("meddler"),
        "{message}"
    );
    let writes = env.proxy.count(|logged| logged.call.writes() && logged.call.resource == "services");
    assert!(writes <= 10, "{writes} writes");
    env.wait_for_condition("main", "Ready", "True/AsExpected").await?;
    println!("{writes} writes until it was reported");
    Ok(())
}
