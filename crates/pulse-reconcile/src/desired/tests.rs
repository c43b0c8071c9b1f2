use std::collections::BTreeMap;
use std::path::Path;

use pulse_crd::fixture::pulse_ingest;
use serde_json::{Value, json};

use super::*;
use crate::revision;

/// All objects of an instance, by kind and name.
pub(super) fn made(changes: Value) -> BTreeMap<String, Value> {
    made_with(changes, None)
}

fn made_with(changes: Value, dev_reload: Option<&Path>) -> BTreeMap<String, Value> {
    made_of(&pulse_ingest(changes), dev_reload)
}

pub(super) fn made_of(cr: &PulseIngest, dev_reload: Option<&Path>) -> BTreeMap<String, Value> {
    let revision = revision::desired(&cr.spec);
    let secrets = Role::ALL.map(|role| (role, format!("key:{}", role.component()))).into();
    let job = JobRequest {
        name: "main-migrate-0123456789".into(),
        kind: JobKind::Migrate,
        revision: revision.clone(),
        args: vec!["migrate".into()],
    };
    let inputs = Inputs { revision: Some(&revision), secrets, job: Some(&job), dev_reload };
    let ChildObjects { service_accounts, migration, services, disruption_budgets, deployments, invalid } =
        resources(cr, &inputs);
    assert_eq!(invalid, []);
    let mut objects = BTreeMap::new();
    let mut add = |kind: &str, object: Value| {
        objects.insert(format!("{kind}/{}", object["metadata"]["name"].as_str().unwrap()), object);
    };
    service_accounts.iter().for_each(|object| add("ServiceAccount", serde_json::to_value(object).unwrap()));
    migration.iter().for_each(|object| add("Job", serde_json::to_value(object).unwrap()));
    services.iter().for_each(|object| add("Service", serde_json::to_value(object).unwrap()));
    disruption_budgets.iter().for_each(|object| add("PodDisruptionBudget", serde_json::to_value(object).unwrap()));
    deployments.iter().for_each(|(_, object)| add("Deployment", serde_json::to_value(object).unwrap()));
    objects
}

pub(super) fn env(container: &Value, name: &str) -> Value {
    let variables = container["env"].as_array().unwrap();
    let found: Vec<&Value> = variables.iter().filter(|variable| variable["name"] == name).collect();
    assert!(found.len() < 2, "{name} is set twice");
    found.first().map_or(Value::Null, |variable| (*variable).clone())
}

pub(super) fn container<'a>(objects: &'a BTreeMap<String, Value>, object: &str) -> &'a Value {
    &objects[object]["spec"]["template"]["spec"]["containers"][0]
}

/// Pointer to the spec of the pods.
const POD: &str = "/spec/template/spec";

/// A change of the spec, and an object with a pointer and the expected value there.
type Effect = (Value, &'static str, String, Value);

fn assert_effects(effects: Vec<Effect>) {
    let before = made(json!({}));
    for (changes, object, pointer, expected) in effects {
        assert_eq!(made(changes.clone())[object].pointer(&pointer), Some(&expected), "{changes}");
        assert_ne!(before[object].pointer(&pointer), Some(&expected), "{changes} has an effect");
    }
}

#[test]
fn image_settings_apply_to_every_pod() {
    assert_effects(vec![
        (
            json!({"image": {"digest": format!("sha256:{}", "a".repeat(64))}}),
            "Deployment/main-api",
            format!("{POD}/containers/0/image"),
            json!(format!("example.com/pulse@sha256:{}", "a".repeat(64))),
        ),
        (
            json!({"image": {"tag": "2"}}),
            "Job/main-migrate-0123456789",
            format!("{POD}/containers/0/image"),
            json!("example.com/pulse:2"),
        ),
        (
            json!({"image": {"pullPolicy": "Always"}}),
            "Deployment/main-worker",
            format!("{POD}/containers/0/imagePullPolicy"),
            json!("Always"),
        ),
        (
            json!({"image": {"pullSecrets": [{"name": "pull"}]}}),
            "Deployment/main-scheduler",
            format!("{POD}/imagePullSecrets/0/name"),
            json!("pull"),
        ),
        (
            json!({"image": {"pullSecrets": [{"name": "pull"}]}}),
            "Job/main-migrate-0123456789",
            format!("{POD}/imagePullSecrets/0/name"),
            json!("pull"),
        ),
    ]);
}

#[test]
fn resources_and_deadlines_apply_to_their_role() {
    assert_effects(vec![
        (
            json!({"api": {"resources": {"limits": {"memory": "1Gi"}}}}),
            "Deployment/main-api",
            format!("{POD}/containers/0/resources/limits/memory"),
            json!("1Gi"),
        ),
        (
            json!({"workers": {"resources": {"requests": {"cpu": 2}}}}),
            "Deployment/main-worker",
            format!("{POD}/containers/0/resources/requests/cpu"),
            json!("2"),
        ),
        (
            json!({"scheduler": {"resources": {"limits": {"cpu": "1"}}}}),
            "Deployment/main-scheduler",
            format!("{POD}/containers/0/resources/limits/cpu"),
            json!("1"),
        ),
        (
            json!({"workers": {"drainTimeoutSeconds": 100}}),
            "Deployment/main-worker",
            format!("{POD}/terminationGracePeriodSeconds"),
            json!(115),
        ),
        (
            json!({"migrations": {"activeDeadlineSeconds": 900}}),
            "Job/main-migrate-0123456789",
            "/spec/activeDeadlineSeconds".into(),
            json!(900),
        ),
    ]);
}

#[test]
fn pod_template_settings_apply_to_their_role() {
    assert_effects(vec![
        (
            json!({"api": {"podTemplate": {"labels": {"team": "a"}}}}),
            "Deployment/main-api",
            "/spec/template/metadata/labels/team".into(),
            json!("a"),
        ),
        (
            json!({"api": {"podTemplate": {"annotations": {"team": "a"}}}}),
            "Deployment/main-api",
            "/spec/template/metadata/annotations/team".into(),
            json!("a"),
        ),
        (
            json!({"workers": {"podTemplate": {"nodeSelector": {"disk": "fast"}}}}),
            "Deployment/main-worker",
            format!("{POD}/nodeSelector/disk"),
            json!("fast"),
        ),
        (
            json!({"workers": {"podTemplate": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}}),
            "Deployment/main-worker",
            format!("{POD}/tolerations/0/key"),
            json!("gpu"),
        ),
        (
            json!({"scheduler": {"podTemplate": {"priorityClassName": "high"}}}),
            "Deployment/main-scheduler",
            format!("{POD}/priorityClassName"),
            json!("high"),
        ),
        (
            json!({"scheduler": {"podTemplate": {"topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}}}),
            "Deployment/main-scheduler",
            format!("{POD}/topologySpreadConstraints/0/maxSkew"),
            json!(2),
        ),
    ]);
}

#[test]
fn secrets_are_mounted_only_when_referenced() {
    assert_effects(vec![
        (
            json!({"auth": {"jwtSecretRef": null, "publicKeySecretRef": {"name": "keys", "key": "a.pem"}}}),
            "Deployment/main-api",
            format!("{POD}/volumes/0/secret/secretName"),
            json!("keys"),
        ),
        (
            json!({"database": {"caSecretRef": {"name": "db-ca"}}}),
            "Job/main-migrate-0123456789",
            format!("{POD}/volumes/0"),
            json!({"name": "pulse-database-ca", "secret": {"secretName": "db-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}),
        ),
        (
            json!({"database": {"caSecretRef": {"name": "db-ca", "key": "root.pem"}}}),
            "Deployment/main-worker",
            format!("{POD}/volumes/0"),
            json!({"name": "pulse-database-ca", "secret": {"secretName": "db-ca", "items": [{"key": "root.pem", "path": "ca.crt"}]}}),
        ),
        (
            json!({"redis": {"caSecretRef": {"name": "redis-ca"}}}),
            "Deployment/main-scheduler",
            format!("{POD}/containers/0/volumeMounts/0"),
            json!({"name": "pulse-redis-ca", "mountPath": "/etc/pulse/redis-ca", "readOnly": true}),
        ),
    ]);
}

/// Checks that each change of the spec sets the variable of the role.
pub(super) fn check_variables(table: &[(Value, &str, &str, &str)]) {
    for (changes, role, name, expected) in table {
        let object = format!("Deployment/main-{role}");
        assert_eq!(env(container(&made(changes.clone()), &object), name)["value"], **expected, "{changes}");
        assert_ne!(env(container(&made(json!({})), &object), name)["value"], **expected, "{changes} has an effect");
    }
}

#[test]
fn settings_become_variables_of_their_role() {
    let settings = [
        (json!({"workers": {"concurrency": 3}}), "worker", "PULSE_CONCURRENCY", "3"),
        (json!({"workers": {"databasePoolSize": 7}}), "worker", "PULSE_DATABASE_MAX_CONNECTIONS", "7"),
        (json!({"workers": {"drainTimeoutSeconds": 7}}), "worker", "PULSE_DRAIN_TIMEOUT", "7s"),
        (json!({"retention": {"eventDays": 7}}), "scheduler", "PULSE_RETAIN_EVENTS", "7d"),
        (json!({"retention": {"historyDays": 7}}), "scheduler", "PULSE_RETAIN_HISTORY", "7d"),
        (json!({"retention": {"deadTaskDays": 7}}), "scheduler", "PULSE_RETAIN_DEAD_TASKS", "7d"),
        (json!({"retention": {"archiveUrl": "s3://a/b"}}), "scheduler", "PULSE_ARCHIVE", "s3://a/b"),
        (json!({"tasks": {"timeoutSeconds": 7}}), "worker", "PULSE_TASK_TIMEOUT", "7s"),
        (json!({"tasks": {"retry": {"baseSeconds": 7}}}), "worker", "PULSE_RETRY_BASE", "7"),
        (json!({"tasks": {"retry": {"capSeconds": 7}}}), "worker", "PULSE_RETRY_CAP", "7s"),
        (json!({"tasks": {"retry": {"jitterPercent": 7}}}), "worker", "PULSE_RETRY_JITTER", "7"),
        (json!({"tasks": {"retry": {"maxAttempts": 7}}}), "api", "PULSE_MAX_ATTEMPTS", "7"),
        (json!({"api": {"limits": {"maxBodyBytes": 7777}}}), "api", "PULSE_MAX_BODY_BYTES", "7777"),
        (json!({"api": {"limits": {"maxEventBytes": 777}}}), "api", "PULSE_MAX_EVENT_BYTES", "777"),
        (json!({"api": {"limits": {"maxEventDepth": 7}}}), "api", "PULSE_MAX_EVENT_DEPTH", "7"),
        (json!({"api": {"limits": {"maxBatch": 7}}}), "api", "PULSE_MAX_BATCH", "7"),
        (json!({"api": {"limits": {"maxInFlight": 7}}}), "api", "PULSE_MAX_IN_FLIGHT", "7"),
        (json!({"api": {"userLimits": {"requestsPerSecond": 7}}}), "api", "PULSE_USER_REQUESTS_PER_SECOND", "7"),
        (json!({"api": {"userLimits": {"eventsPerSecond": 7}}}), "api", "PULSE_USER_EVENTS_PER_SECOND", "7"),
        (json!({"api": {"userLimits": {"bytesPerSecond": 7}}}), "api", "PULSE_USER_BYTES_PER_SECOND", "7"),
        (json!({"api": {"userLimits": {"maxInFlight": 7}}}), "api", "PULSE_USER_MAX_IN_FLIGHT", "7"),
        (json!({"api": {"userLimits": {"maxLists": 7}}}), "api", "PULSE_USER_MAX_LISTS", "7"),
        (json!({"api": {"userLimits": {"maxNewUsersPerMinute": 7}}}), "api", "PULSE_MAX_NEW_USERS_PER_MINUTE", "7"),
        (json!({"api": {"docs": false}}), "api", "PULSE_DOCS", "false"),
        (
            json!({"api": {"corsAllowOrigins": ["https://a", "https://b"]}}),
            "api",
            "PULSE_CORS_ALLOW_ORIGIN",
            "https://a,https://b",
        ),
        (
            json!({"api": {"podTemplate": {"env": [{"name": "PULSE_LOG", "value": "debug"}]}}}),
            "api",
            "PULSE_LOG",
            "debug",
        ),
    ];
    check_variables(&settings);
    let additional = json!({"api": {"podTemplate": {"env": [{"name": "PULSE_INSTANCE", "value": "additional"}]}}});
    assert_eq!(
        env(container(&made(additional), "Deployment/main-api"), "PULSE_INSTANCE")["value"],
        "shop/main",
        "managed variables take precedence"
    );
}

#[test]
fn ca_is_mounted_in_every_pod_that_connects_and_in_no_other() {
    let both = json!({"database": {"caSecretRef": {"name": "a"}}, "redis": {"caSecretRef": {"name": "b"}},
                      "auth": {"jwtSecretRef": null, "publicKeySecretRef": {"name": "k", "key": "p"}}});
    let volumes = |objects: &BTreeMap<String, Value>, object: &str| -> Vec<String> {
        let volumes = objects[object]["spec"]["template"]["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let mounts = container(objects, object)["volumeMounts"].as_array().map_or(0, Vec::len);
        assert_eq!(volumes.len(), mounts, "{object}");
        volumes.iter().filter_map(|volume| volume["name"].as_str().map(str::to_owned)).collect()
    };
    let objects = made(both.clone());
    assert_eq!(volumes(&objects, "Deployment/main-api"), ["pulse-auth", "pulse-database-ca", "pulse-redis-ca", "tmp"]);
    assert_eq!(volumes(&objects, "Deployment/main-worker"), ["pulse-database-ca", "pulse-redis-ca", "tmp"]);
    assert_eq!(volumes(&objects, "Deployment/main-scheduler"), ["pulse-database-ca", "pulse-redis-ca", "tmp"]);
    assert_eq!(
        volumes(&objects, "Job/main-migrate-0123456789"),
        ["pulse-database-ca", "tmp"],
        "a migration does not connect to Redis"
    );
    assert!(env(container(&objects, "Job/main-migrate-0123456789"), "PULSE_REDIS_CA_FILE").is_null());
    let dropped = json!({"database": {"caSecretRef": null}, "redis": {"caSecretRef": null}});
    assert_eq!(made(dropped), made(json!({})), "removing a CA leaves nothing behind");
    let (with, without) = (pulse_ingest(both), pulse_ingest(json!({})));
    assert_eq!(revision::desired(&with.spec), revision::desired(&without.spec), "a CA triggers no migration");
}

#[test]
fn common_metadata_is_on_all_objects_and_pods_and_in_no_selector() {
    let common = json!({
        "commonLabels": { "team": "a", "zone": "b", "app.kubernetes.io/component": "foreign" },
        "commonAnnotations": { "team": "a", "zone": "b", "pulseboard.dev/applied": "foreign" },
        "api": { "podTemplate": { "labels": { "zone": "api" }, "annotations": { "zone": "api" } } },
    });
    let before = made(json!({}));
    for (name, object) in made(common) {
        let pod = &object["spec"]["template"]["metadata"];
        let zone = if name == "Deployment/main-api" { "api" } else { "b" };
        for (metadata, zone) in [(&object["metadata"], "b"), (pod, zone)] {
            if metadata.is_null() {
                continue;
            }
            assert_eq!(metadata["labels"]["team"], "a", "{name}");
            assert_eq!(metadata["annotations"]["team"], "a", "{name}");
            assert_eq!(metadata["labels"]["zone"], zone, "{name}");
            assert_eq!(metadata["annotations"]["zone"], zone, "{name}");
            assert_ne!(metadata["labels"]["app.kubernetes.io/component"], "foreign", "{name}");
            assert_eq!(metadata["annotations"]["pulseboard.dev/applied"], Value::Null, "{name}");
        }
        assert_eq!(object["spec"]["selector"], before[&name]["spec"]["selector"], "{name}");
    }
}

#[test]
fn selectors_have_three_labels_and_objects_have_an_owner() {
    for (name, object) in made(json!({"workers": {"replicas": 3}})) {
        let owner = &object["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["name"], &owner["controller"]), (&json!("main"), &json!(true)), "{name}");
        assert_eq!(owner["blockOwnerDeletion"], Value::Null, "{name} blocks no deletion");
        assert!(object["metadata"]["finalizers"].is_null(), "{name}");
        assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/managed-by"], "pulse-operator", "{name}");
        if let Some(selector) = object["spec"]["selector"]["matchLabels"].as_object() {
            assert_eq!(selector.len(), 3, "{name}");
        }
    }
}

#[test]
fn pods_are_restricted_and_have_no_token() {
    let objects = made(json!({}));
    let mut pods = 0;
    for (name, object) in &objects {
        let Some(pod) = object.pointer("/spec/template/spec") else { continue };
        pods += 1;
        let security = &pod["securityContext"];
        assert_eq!(
            (&security["runAsNonRoot"], &security["seccompProfile"]["type"]),
            (&json!(true), &json!("RuntimeDefault")),
            "{name}"
        );
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(container["capabilities"]["drop"], json!(["ALL"]), "{name}");
        assert_eq!(container["readOnlyRootFilesystem"], true, "{name}");
    }
    assert_eq!(pods, 4);
}

#[test]
fn deployments_contain_no_replicas() {
    for (name, object) in made(json!({"workers": {"replicas": 3}, "api": {"replicas": 5}})) {
        assert!(object["spec"]["replicas"].is_null(), "{name}");
    }
}

#[test]
fn single_pod_has_no_disruption_budget() {
    let budgets = |changes| -> Vec<String> {
        made(changes).into_keys().filter(|name| name.starts_with("PodDisruptionBudget")).collect()
    };
    assert_eq!(budgets(json!({"api": {"replicas": 1}})), [""; 0]);
    assert_eq!(budgets(json!({})), ["PodDisruptionBudget/main-api"]);
    let external = json!({"replicas": 1, "autoscaling": {"mode": "External"}});
    let both = ["PodDisruptionBudget/main-api", "PodDisruptionBudget/main-worker"];
    assert_eq!(budgets(json!({"api": external, "workers": external})), both, "another scaler may run more than one");
    let scaled = json!({"api": {"replicas": 1}, "workers": {"autoscaling": {"maxReplicas": 2}}});
    assert_eq!(budgets(scaled), ["PodDisruptionBudget/main-worker"]);
    let schedulers = json!({"api": {"replicas": 1}, "scheduler": {"replicas": 2}});
    assert_eq!(budgets(schedulers), ["PodDisruptionBudget/main-scheduler"]);
}

#[test]
fn child_names_of_the_longest_name_are_valid() {
    let mut cr = pulse_ingest(json!({}));
    cr.metadata.name = Some("n".repeat(40));
    for component in ["api", "worker", "scheduler", "console", names::MIGRATION, "migrate-0123456789"] {
        assert!(names::child(&cr, component).len() <= 63);
    }
}

#[test]
fn dev_reload_mounts_a_build_directory_in_every_role() {
    let with_console = json!({ "console": { "enabled": true } });
    let reloading = made_with(with_console, Some(Path::new("/dev-bin/pulse")));
    for role in Role::ALL {
        let name = format!("Deployment/main-{}", role.component());
        let pod = &reloading[&name]["spec"]["template"]["spec"];
        assert_eq!(env(container(&reloading, &name), "PULSE_DEV_RELOAD")["value"], "/dev-bin/pulse");
        let has = |list: &Value, item: Value| list.as_array().unwrap().contains(&item);
        let mount = json!({ "name": "pulse-dev-bin", "mountPath": "/dev-bin" });
        assert!(has(&pod["containers"][0]["volumeMounts"], mount), "{name}");
        assert!(has(&pod["volumes"], json!({ "name": "pulse-dev-bin", "emptyDir": {} })), "{name}");
    }
    let job = &reloading["Job/main-migrate-0123456789"];
    assert_eq!(job, &made(json!({}))["Job/main-migrate-0123456789"], "a Job runs the binary of its image");
    let with_key = json!({"auth": {"jwtSecretRef": null, "publicKeySecretRef": {"name": "k", "key": "p"}}});
    let api = &made_with(with_key, Some(Path::new("/dev-bin/pulse")))["Deployment/main-api"];
    assert_eq!(api.pointer("/spec/template/spec/volumes").unwrap().as_array().unwrap().len(), 3);
}

#[test]
fn pod_template_cannot_make_the_drain_longer_than_the_grace_period() {
    let template = json!({ "env": [{ "name": "PULSE_DRAIN_DELAY", "value": "1h" }] });
    let objects = made(json!({ "api": { "podTemplate": template } }));
    assert_eq!(env(container(&objects, "Deployment/main-api"), "PULSE_DRAIN_DELAY")["value"], "5s");
    let grace = objects["Deployment/main-api"].pointer("/spec/template/spec/terminationGracePeriodSeconds");
    assert_eq!(grace, Some(&json!(35)), "5 s, 25 s for requests in progress, and a reserve of 5 s");
}

#[test]
fn pod_template_cannot_change_the_pool_size_unseen() {
    let template = json!({ "podTemplate": { "env": [{ "name": "PULSE_DATABASE_MAX_CONNECTIONS", "value": "99" }] } });
    let mut api = template.clone();
    api["databasePoolSize"] = json!(7);
    let objects = made(json!({ "api": api, "workers": template, "scheduler": template }));
    for (role, pool, connections) in [("api", "7", "11"), ("worker", "2", "6"), ("scheduler", "2", "4")] {
        let name = format!("Deployment/main-{role}");
        assert_eq!(env(container(&objects, &name), "PULSE_DATABASE_MAX_CONNECTIONS")["value"], pool, "{role}");
        let annotation = &objects[&name]["spec"]["template"]["metadata"]["annotations"]["pulseboard.dev/connections"];
        assert_eq!(annotation, connections, "{role}");
    }
}

#[test]
fn rollouts_leave_no_role_without_pods_and_wait_for_replaced_pods_with_a_budget() {
    for (changes, waits) in [(json!({}), false), (json!({ "database": { "maxConnectionsTotal": 500 } }), true)] {
        for (name, object) in made(changes).into_iter().filter(|(name, _)| name.starts_with("Deployment")) {
            let spec = &object["spec"];
            assert_eq!(spec["strategy"]["type"], "RollingUpdate", "{name}");
            assert_eq!(spec["strategy"]["rollingUpdate"], json!({ "maxSurge": "25%", "maxUnavailable": 0 }), "{name}");
            let grace = &spec["template"]["spec"]["terminationGracePeriodSeconds"];
            let wanted = if waits { grace } else { &Value::Null };
            assert_eq!(&spec["minReadySeconds"], wanted, "{name}");
            let deadline = spec["progressDeadlineSeconds"].as_i64().expect("a deadline");
            assert_eq!(deadline, 600 + wanted.as_i64().unwrap_or(0), "{name}");
        }
    }
}

#[test]
fn pods_have_the_pull_secrets_of_the_object_and_then_of_the_operator() {
    let mut cr = pulse_ingest(json!({"image": {"pullSecrets": [{"name": "own"}, {"name": "both"}]}}));
    cr.spec.image.add_pull_secrets(&["both".into(), "everywhere".into(), "everywhere".into()]);
    let objects = made_of(&cr, None);
    for object in
        ["Deployment/main-api", "Deployment/main-worker", "Deployment/main-scheduler", "Job/main-migrate-0123456789"]
    {
        let secrets = &objects[object]["spec"]["template"]["spec"]["imagePullSecrets"];
        assert_eq!(*secrets, json!([{"name": "own"}, {"name": "both"}, {"name": "everywhere"}]), "{object}");
    }
    cr.spec.image.pull_secrets.clear();
    cr.spec.image.add_pull_secrets(&[]);
    assert_eq!(made_of(&cr, None), made(json!({})), "nothing changes without pull Secrets");
}
