//! The operator's part of a pod is as without a pod template, whatever the template has.

use std::collections::BTreeSet;

use proptest::prelude::*;
use pulse_crd::fixture::pulse_ingest;
use serde_json::{Value, json};

use super::*;
use crate::revision;

fn names_of(items: &Value) -> Vec<String> {
    let items = items.as_array().into_iter().flatten();
    items.filter_map(|item| item["name"].as_str().map(str::to_owned)).collect()
}

/// A pod template whose items often have the names of the operator's.
fn colliding_template() -> impl Strategy<Value = Value> {
    let mut names: Vec<String> =
        ["pulse", "pulse-auth", "pulse-database-ca", "pulse-dev-bin", "tmp", "other"].map(str::to_owned).into();
    let env = pods(&json!({})).into_iter().flat_map(|pod| names_of(&pod["spec"]["containers"][0]["env"]));
    let variables: BTreeSet<String> = env.chain(["MY_KEY".to_owned()]).collect();
    let labels = names::own_labels("main", "api").into_keys().chain([names::SECRETS.to_owned()]);
    let labels = proptest::sample::subsequence(labels.collect::<Vec<_>>(), 0..4);
    names.sort();
    let some = |names: Vec<String>| proptest::sample::subsequence(names.clone(), 0..=names.len());
    let paths = ["/etc/pulse/auth", "/etc/pulse/auth/", "/tmp", "/tmp/", "/dev-bin", "/data"].map(str::to_owned);
    (
        some(names.clone()),
        some(names.clone()),
        some(names),
        some(paths.into()),
        some(variables.into_iter().collect()),
        labels,
        0u32..=1000,
    )
        .prop_map(|(volumes, sidecars, inits, paths, variables, labels, grace)| {
            let foreign = |names: Vec<String>, fields: &Value| -> Vec<Value> {
                let item = |name| {
                    let mut item = fields.clone();
                    item["name"] = json!(name);
                    item
                };
                names.into_iter().map(item).collect()
            };
            let labels: BTreeMap<String, &str> = labels.into_iter().map(|name| (name, "foreign")).collect();
            let mount = |path| json!({ "name": "other", "mountPath": path, "subPath": "foreign" });
            json!({
                "labels": labels, "annotations": labels,
                "volumes": foreign(volumes, &json!({ "hostPath": { "path": "/foreign" } })),
                "volumeMounts": paths.into_iter().map(mount).collect::<Vec<_>>(),
                "sidecars": foreign(sidecars, &json!({ "image": "foreign" })),
                "initContainers": foreign(inits, &json!({ "image": "foreign" })),
                "env": foreign(variables, &json!({ "valueFrom": { "fieldRef": { "fieldPath": "foreign" } } })),
                "serviceAccount": { "automountToken": true },
                "terminationGracePeriodSeconds": grace.max(1),
                "topologySpreadConstraints": [],
            })
        })
}

/// The pods of every role and of a migration, with every volume of the operator.
fn pods(template: &Value) -> Vec<Value> {
    let changes = json!({
        "auth": { "jwtSecretRef": null, "publicKeySecretRef": { "name": "keys", "key": "key" } },
        "database": { "caSecretRef": { "name": "ca" } }, "redis": { "caSecretRef": { "name": "ca" } },
        "api": { "podTemplate": template }, "workers": { "podTemplate": template },
        "scheduler": { "podTemplate": template }, "migrations": { "podTemplate": template },
    });
    let cr = pulse_ingest(changes);
    let revision = revision::desired(&cr.spec);
    let job = JobRequest {
        name: "main-migrate-0".into(),
        kind: JobKind::Migrate,
        revision: revision.clone(),
        args: vec!["migrate".into()],
    };
    let secrets = Role::ALL.map(|role| (role, "digest".to_owned())).into();
    let inputs =
        Inputs { revision: Some(&revision), secrets, job: Some(&job), dev_reload: Some(Path::new("/dev-bin/pulse")) };
    let all = resources(&cr, &inputs);
    assert_eq!(all.invalid, []);
    let deployments =
        all.deployments.into_iter().filter_map(|(_, deployment)| deployment.spec).map(|spec| spec.template);
    let templates = deployments.chain(all.migration.and_then(|job| job.spec).map(|spec| spec.template));
    templates.filter_map(|template| serde_json::to_value(template).ok()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operator_wins_over_any_pod_template(template in colliding_template()) {
        let own = pods(&json!({ "terminationGracePeriodSeconds": template["terminationGracePeriodSeconds"] }));
        for (pod, ours) in pods(&template).into_iter().zip(own) {
            let (spec, container) = (&pod["spec"], &pod["spec"]["containers"][0]);
            let expected = &ours["spec"]["containers"][0];
            for field in ["name", "image", "args", "ports", "livenessProbe", "readinessProbe", "resources"] {
                prop_assert_eq!(&container[field], &expected[field], "{}", field);
            }
            for (list, key) in [("env", "name"), ("volumeMounts", "mountPath")] {
                let items = container[list].as_array().cloned().unwrap_or_default();
                let mut keys = BTreeSet::new();
                for item in &items {
                    let text = item[key].as_str().unwrap_or_default().trim_end_matches('/').to_owned();
                    prop_assert!(keys.insert(text), "{} twice: {}", key, item);
                }
                let needed = expected[list].as_array().into_iter().flatten();
                for item in needed.filter(|item| item[key] != "/tmp") {
                    prop_assert!(items.contains(item), "{} is missing", item);
                }
            }
            let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
            for volume in ours["spec"]["volumes"].as_array().into_iter().flatten().filter(|it| it["name"] != "tmp") {
                prop_assert!(volumes.contains(volume), "{} is missing", volume);
            }
            let volumes = names_of(&spec["volumes"]);
            prop_assert_eq!(volumes.iter().collect::<BTreeSet<_>>().len(), volumes.len(), "volumes have unique names");
            let containers = names_of(&spec["containers"]);
            prop_assert_eq!(containers.iter().filter(|name| *name == "pulse").count(), 1);
            prop_assert!(!names_of(&spec["initContainers"]).contains(&"pulse".to_owned()));
            for (name, value) in ours["metadata"]["labels"].as_object().into_iter().flatten() {
                prop_assert_eq!(&pod["metadata"]["labels"][name], value);
            }
            for (name, value) in ours["metadata"]["annotations"].as_object().into_iter().flatten() {
                prop_assert_eq!(&pod["metadata"]["annotations"][name], value);
            }
        }
    }
}
