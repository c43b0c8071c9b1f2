//! Pod templates on a real API server, which fills in defaults and refuses what is not valid.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::Api;
use kube::api::{ListParams, PostParams};
use pulse_tests::eventually;
use pulse_tests::operator::{OperatorEnv, TIMEOUT};
use serde_json::{Value, json};

/// A template with every field.
fn every_field() -> Value {
    json!({
        "labels": { "team": "a", "app.kubernetes.io/component": "foreign" },
        "annotations": { "note": "any text" },
        "serviceAccount": { "annotations": { "iam.example.com/role": "reader" }, "automountToken": true },
        "nodeSelector": { "disk": "fast" },
        "tolerations": [{ "key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60 }],
        "affinity": {
            "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
                "weight": 1, "preference": { "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] },
            }] },
            "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
                "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "team": "b" } },
            }] },
        },
        "topologySpreadConstraints": [{
            "maxSkew": 2, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
            "minDomains": 2, "matchLabelKeys": ["pod-template-hash"], "nodeAffinityPolicy": "Honor",
            "nodeTaintsPolicy": "Honor", "labelSelector": { "matchExpressions": [{ "key": "team", "operator": "Exists" }] },
        }],
        "priorityClassName": "high", "runtimeClassName": "gvisor", "schedulerName": "mine",
        "env": [
            { "name": "PULSE_INSTANCE", "value": "foreign" },
            { "name": "MODE", "value": "test" },
            { "name": "API_KEY", "valueFrom": { "secretKeyRef": { "name": "partner", "key": "key", "optional": true } } },
            { "name": "CONFIG", "valueFrom": { "configMapKeyRef": { "name": "config", "key": "a" } } },
            { "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            { "name": "CPUS", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1" } } },
        ],
        "envFrom": [{ "prefix": "A_", "secretRef": { "name": "more" } }, { "configMapRef": { "name": "config", "optional": true } }],
        "volumes": [
            { "name": "rules", "configMap": { "name": "rules" } },
            { "name": "cache", "emptyDir": { "sizeLimit": 1048576 } },
            { "name": "tmp", "emptyDir": { "medium": "Memory", "sizeLimit": "16Mi" } },
        ],
        "volumeMounts": [
            { "name": "rules", "mountPath": "/rules", "readOnly": true },
            { "name": "cache", "mountPath": "/cache" },
            { "name": "cache", "mountPath": "/more", "subPath": "more" },
        ],
        "initContainers": [
            { "name": "prepare", "image": "example.com/prepare:1", "args": ["now"] },
            { "name": "proxy", "image": "example.com/proxy:1", "restartPolicy": "Always" },
        ],
        "sidecars": [{ "name": "agent", "image": "example.com/agent:1", "resources": { "limits": { "cpu": 1 } } }],
        "podSecurityContext": { "runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [3000] },
        "securityContext": { "readOnlyRootFilesystem": false },
        "dnsPolicy": "None",
        "dnsConfig": { "nameservers": ["192.0.2.1"], "searches": ["example.com"], "options": [{ "name": "ndots", "value": "2" }] },
        "hostAliases": [{ "ip": "192.0.2.2", "hostnames": ["partner.example.com"] }],
        "terminationGracePeriodSeconds": 100,
    })
}

/// The pod that results from the template, around the operator's container.
fn every_result(component: &str, ours: &Value) -> Value {
    let template = every_field();
    let pick = |name: &str| template[name].clone();
    let mut container = ours.clone();
    let additional = template["env"].as_array().into_iter().flatten().skip(1);
    container["env"].as_array_mut().into_iter().for_each(|env| env.extend(additional.clone().cloned()));
    container["envFrom"] = pick("envFrom");
    container["volumeMounts"] = pick("volumeMounts");
    let tmp = json!({ "name": "tmp", "mountPath": "/tmp" });
    container["volumeMounts"].as_array_mut().into_iter().for_each(|mounts| mounts.push(tmp.clone()));
    container["securityContext"]["readOnlyRootFilesystem"] = json!(false);
    let mut spec = json!({
        "serviceAccountName": format!("main-{component}"), "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "restartPolicy": if component == "migration" { "Never" } else { "Always" },
        "securityContext": {
            "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" },
            "runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [3000],
        },
        "containers": [container, template["sidecars"][0]],
    });
    for name in [
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "volumes",
        "initContainers",
        "dnsPolicy",
        "dnsConfig",
        "hostAliases",
        "terminationGracePeriodSeconds",
    ] {
        spec[name] = pick(name);
    }
    spec
}

/// The pod template as the API server stores it in a Deployment.
async fn with_defaults(env: &OperatorEnv, spec: &Value) -> anyhow::Result<Value> {
    // A Deployment restarts its pods always, and a Job has no other defaults.
    let restart = spec["restartPolicy"].clone();
    let mut spec = spec.clone();
    spec["restartPolicy"] = json!("Always");
    let deployment = json!({
        "metadata": { "name": "expected" },
        "spec": {
            "selector": { "matchLabels": { "a": "b" } },
            "template": { "metadata": { "labels": { "a": "b" } }, "spec": spec },
        },
    });
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let stored = env.api::<Deployment>().create(&params, &serde_json::from_value(deployment)?).await?;
    let mut spec = serde_json::to_value(stored)?["spec"]["template"]["spec"].clone();
    spec["restartPolicy"] = restart;
    Ok(spec)
}

async fn worker(env: &OperatorEnv) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(env.api::<Deployment>().get("main-worker").await?)?["spec"]["template"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_a_template_reaches_the_pods_and_leaves_them_again() -> anyhow::Result<()> {
    let env = OperatorEnv::start("template").await?;
    // Admission of the migration's pod requires these two to exist.
    let high: PriorityClass = serde_json::from_value(json!({ "metadata": { "name": "high" }, "value": 1000 }))?;
    Api::all(env.client.clone()).create(&PostParams::default(), &high).await?;
    let gvisor: RuntimeClass = serde_json::from_value(json!({ "metadata": { "name": "gvisor" }, "handler": "runsc" }))?;
    Api::all(env.client.clone()).create(&PostParams::default(), &gvisor).await?;
    let operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.install("main", json!({ "migrations": { "podTemplate": every_field() } })).await?;
    let before = worker(&env).await?;
    let ours = &before["spec"]["containers"][0];

    let jobs = serde_json::to_value(env.api::<Job>().list(&ListParams::default()).await?.items)?;
    let job = &jobs[0]["spec"]["template"];
    let mut container = job["spec"]["containers"][0].clone();
    assert_eq!(container["args"][0], "migrate");
    let own = |name: &str| {
        [
            "PULSE_INSTANCE",
            "PULSE_LOG_FORMAT",
            "PULSE_IMAGE",
            "PULSE_TIME_LIMIT",
            "PULSE_RESULT_FILE",
            "PULSE_DATABASE_URL",
        ]
        .contains(&name)
    };
    container["env"].as_array_mut().into_iter().for_each(|env| env.retain(|it| own(it["name"].as_str().unwrap_or(""))));
    assert_eq!(job["spec"], with_defaults(&env, &every_result("migration", &container)).await?);
    assert_eq!(job["metadata"]["annotations"]["note"], "any text");

    let drain = json!({ "podTemplate": every_field(), "drainTimeoutSeconds": 60 });
    env.patch_spec("main", json!({ "workers": drain })).await?;
    let changed = async || Ok(worker(&env).await?["spec"]["schedulerName"] == "mine");
    eventually("the template is applied", TIMEOUT, changed).await?;
    let after = worker(&env).await?;
    assert_eq!(after["spec"], with_defaults(&env, &every_result("worker", ours)).await?);
    assert_eq!(
        (&after["metadata"]["labels"]["team"], &after["metadata"]["labels"]["app.kubernetes.io/component"]),
        (&json!("a"), &json!("worker")),
    );
    assert_eq!(after["metadata"]["annotations"]["note"], "any text");
    let version = async || anyhow::Ok(env.api::<Deployment>().get("main-worker").await?.metadata.resource_version);
    let (written, reconciles) = (version().await?, operator.reconcile_count().await);
    let again = async || Ok(operator.reconcile_count().await >= reconciles + 3);
    eventually("the object is reconciled again", TIMEOUT, again).await?;
    assert_eq!(version().await?, written, "values that the API server stores in another form are no change");
    let account = env.api::<ServiceAccount>().get("main-worker").await?;
    assert_eq!(account.metadata.annotations.unwrap_or_default()["iam.example.com/role"], "reader");

    env.patch_spec("main", json!({ "workers": { "podTemplate": null, "drainTimeoutSeconds": null } })).await?;
    let restored = async || Ok(worker(&env).await? == before);
    eventually("nothing of the template is left", TIMEOUT, restored).await
}

#[tokio::test(flavor = "multi_thread")]
async fn mistake_in_a_template_is_in_the_status_and_changes_nothing() -> anyhow::Result<()> {
    let env = OperatorEnv::start("mistakes").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.install("main", json!({})).await?;
    env.wait_for_condition("main", "Ready", "True").await?;
    let before = worker(&env).await?;
    let unknown = json!({ "volumes": [{ "name": "key", "secrt": { "secretName": "a" } }] });
    // The type allows it, the API server does not.
    let refused = json!({ "sidecars": [{ "name": "agent" }] });
    for (template, condition, reason, part) in [
        (
            unknown,
            "Stalled",
            "True/InvalidPodTemplate",
            "spec.workers.podTemplate.volumes: Kubernetes 1.33 has no field 0.secrt",
        ),
        (refused, "Ready", "False/ReconcileFailed", "spec.template.spec.containers[1].image: Required value"),
    ] {
        env.patch_spec("main", json!({ "workers": { "podTemplate": template } })).await?;
        env.wait_for_condition("main", condition, reason).await?;
        let status = env.status("main").await?.to_string();
        assert!(status.contains(part), "{status}");
        assert_eq!(worker(&env).await?, before);
        env.wait_for_condition("main", "Available", "True").await?;
        env.patch_spec("main", json!({ "workers": { "podTemplate": null } })).await?;
        env.wait_for_condition("main", "Ready", "True").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn named_service_account_is_neither_created_nor_changed() -> anyhow::Result<()> {
    let env = OperatorEnv::start("account").await?;
    let accounts = env.api::<ServiceAccount>();
    let own: ServiceAccount = serde_json::from_value(json!({ "metadata": { "name": "main-worker" } }))?;
    let before = accounts.create(&PostParams::default(), &own).await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    // An account with the name that the operator would use, and one that does not exist.
    let named = |name: &str| json!({ "podTemplate": { "serviceAccount": { "name": name } } });
    env.install("main", json!({ "workers": named("main-worker"), "api": named("missing") })).await?;
    env.wait_for_condition("main", "Ready", "True").await?;
    assert_eq!(worker(&env).await?["spec"]["serviceAccountName"], "main-worker");
    assert_eq!(accounts.get("main-worker").await?.metadata.resource_version, before.metadata.resource_version);
    let mut names: Vec<_> =
        accounts.list(&ListParams::default()).await?.items.into_iter().filter_map(|it| it.metadata.name).collect();
    names.retain(|name| name != "default");
    assert_eq!(names, ["main-migration", "main-scheduler", "main-worker"]);
    Ok(())
}
