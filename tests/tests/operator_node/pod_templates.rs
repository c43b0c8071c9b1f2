//! Pods with a full pod template, and with a user id that the image does not know.

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::node_env::NodeEnv;

/// A user id of a range that a cluster such as OpenShift prescribes for a namespace.
const USER: i64 = 1_000_680_000;

/// Every field of a template, with values that this node can run.
fn every_field() -> Value {
    let restricted = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    let container = |name: &str, args: &[&str]| {
        json!({
            "name": name, "image": "localhost/pulse:one", "imagePullPolicy": "Never", "args": args,
            "securityContext": restricted, "resources": { "limits": { "memory": "256Mi" } },
        })
    };
    let mut beside = container("beside", &["scheduler"]);
    beside["env"] = json!([
        { "name": "PULSE_ADMIN_LISTEN", "value": "[::]:9191" },
        { "name": "PULSE_DATABASE_URL", "valueFrom": { "secretKeyRef": { "name": "main-database", "key": "uri" } } },
        { "name": "PULSE_REDIS_URL", "valueFrom": { "secretKeyRef": { "name": "main-redis", "key": "url" } } },
    ]);
    let mut native = beside.clone();
    native["name"] = json!("native");
    native["restartPolicy"] = json!("Always");
    native["env"][0]["value"] = json!("[::]:9292");
    json!({
        "labels": { "team": "a" }, "annotations": { "note": "b" },
        "serviceAccount": { "annotations": { "role": "reader" }, "automountToken": true },
        "nodeSelector": { "kubernetes.io/os": "linux" },
        "tolerations": [{ "operator": "Exists" }],
        "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "kubernetes.io/os", "operator": "In", "values": ["linux"] }] },
        ] } } },
        "topologySpreadConstraints": [{
            "maxSkew": 5, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "matchLabelKeys": ["pod-template-hash"],
        }],
        "priorityClassName": "above-all", "runtimeClassName": "plain", "schedulerName": "default-scheduler",
        "env": [
            { "name": "API_KEY", "valueFrom": { "secretKeyRef": { "name": "partner", "key": "key" } } },
            { "name": "TEAM", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['team']" } } },
            { "name": "PULSE_INSTANCE", "value": "foreign" },
        ],
        "envFrom": [{ "configMapRef": { "name": "settings" } }],
        "volumes": [
            { "name": "settings", "configMap": { "name": "settings" } },
            { "name": "tmp", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
        ],
        "volumeMounts": [{ "name": "settings", "mountPath": "/settings", "readOnly": true }],
        "initContainers": [container("before", &["--version"]), native],
        "sidecars": [beside],
        "podSecurityContext": { "supplementalGroups": [3000] },
        "securityContext": { "privileged": false },
        "dnsPolicy": "ClusterFirst", "dnsConfig": { "options": [{ "name": "ndots", "value": "2" }] },
        "hostAliases": [{ "ip": "192.0.2.2", "hostnames": ["partner.example.com"] }],
        "terminationGracePeriodSeconds": 20,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn full_template_and_any_user_id_run_under_the_restricted_standard() -> anyhow::Result<()> {
    let env = NodeEnv::start("templates").await?;
    let _operator = env.start_operator()?;
    prepare(&env).await?;
    let probes = json!({ "startup": { "failureThreshold": 60 } });
    env.apply(json!({ "workers": { "podTemplate": every_field(), "probes": probes } })).await?;
    env.wait_for_condition("Ready").await?;
    let worker = env.pods("worker").await?.remove(0);
    let ready: Vec<bool> =
        worker.status.iter().flat_map(|it| it.container_statuses.iter().flatten()).map(|it| it.ready).collect();
    assert_eq!(ready, [true, true], "the worker and the container beside it");
    for (event, expected) in [
        ("variable:API_KEY", "for the partner"),
        ("variable:TEAM", "a"),
        ("variable:region", "eu"),
        ("variable:PULSE_INSTANCE", "templates/main"),
        ("file:/settings/region", "eu"),
        ("write:/tmp/any", "written"),
    ] {
        assert_eq!(result(&env, event).await?, expected, "{event}");
    }
    assert!(result(&env, "file:/etc/hosts").await?.contains("192.0.2.2\tpartner.example.com"));

    // Another image, so that a migration runs too.
    let user = json!({ "podSecurityContext": { "runAsUser": USER, "runAsGroup": 0, "fsGroup": USER } });
    let role = json!({ "podTemplate": user });
    env.patch_spec(json!({
        "image": { "tag": "two" }, "api": role, "workers": role, "scheduler": role, "migrations": role,
    }))
    .await?;
    let replaced = async || Ok(users(&env).await?.iter().all(|(_, user)| *user == Some(USER)));
    env.eventually("every pod has the user id", replaced).await?;
    env.wait_for_condition("Ready").await?;
    assert_eq!(result(&env, "write:/tmp/any").await?, "written");
    let components: std::collections::BTreeSet<String> = users(&env).await?.into_iter().map(|(name, _)| name).collect();
    assert_eq!(components.into_iter().collect::<Vec<_>>(), ["api", "migration", "scheduler", "worker"]);
    Ok(())
}

/// Creates what the template refers to.
async fn prepare(env: &NodeEnv) -> anyhow::Result<()> {
    env.apply_secret("partner", "key", "for the partner").await?;
    let params = PatchParams::apply("test").force();
    let settings = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" }, "data": { "region": "eu" } });
    env.api::<ConfigMap>().patch("settings", &params, &Patch::Apply(settings)).await?;
    let class = json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": "above-all" }, "value": 1000 });
    Api::<PriorityClass>::all(env.client()).patch("above-all", &params, &Patch::Apply(class)).await?;
    let runtime = json!({ "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": { "name": "plain" }, "handler": "runc" });
    Api::<RuntimeClass>::all(env.client()).patch("plain", &params, &Patch::Apply(runtime)).await?;
    Ok(())
}

/// The result of the scripted processor for an event.
async fn result(env: &NodeEnv, event: &str) -> anyhow::Result<String> {
    let task = env.post_event(event).await?;
    env.wait_until_completed(&task).await?;
    let sql = "SELECT properties->>'result' FROM events WHERE event_name = $1 ORDER BY id DESC LIMIT 1";
    Ok(sqlx::query_scalar(sql).bind(event).fetch_one(&env.servers.db).await?)
}

/// The component and the user id of every pod of the newest image that is not terminating.
async fn users(env: &NodeEnv) -> anyhow::Result<Vec<(String, Option<i64>)>> {
    let mut pods = env.api::<Pod>().list(&kube::api::ListParams::default()).await?.items;
    let old_migration = |pod: &Pod| {
        let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.as_deref());
        pod.labels()["app.kubernetes.io/component"] == "migration" && image != Some("localhost/pulse:two")
    };
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && !old_migration(pod));
    let user = |pod: &Pod| pod.spec.as_ref()?.security_context.as_ref()?.run_as_user;
    Ok(pods.iter().map(|pod| (pod.labels()["app.kubernetes.io/component"].clone(), user(pod))).collect())
}
