use pulse_crd::fixture::pulse_ingest;
use serde_json::{Value, json};

use super::tests::{container, env, made};
use super::*;
use crate::revision;

const WORKER: &str = "Deployment/main-worker";
const JOB: &str = "Job/main-migrate-0123456789";

fn worker(template: &Value) -> Value {
    made(json!({ "workers": { "podTemplate": template } }))[WORKER]["spec"]["template"].clone()
}

#[test]
fn migration_pods_have_their_own_template() {
    let template = json!({
        "labels": { "team": "a" }, "annotations": { "sidecar.istio.io/inject": "false" },
        "env": [{ "name": "HTTPS_PROXY", "value": "http://proxy" }],
        "volumes": [{ "name": "ca", "configMap": { "name": "ca" } }],
        "nodeSelector": { "pool": "data" }, "terminationGracePeriodSeconds": 7,
    });
    let resources = json!({ "limits": { "memory": "1Gi" }, "requests": {} });
    let objects = made(json!({ "migrations": { "podTemplate": template, "resources": resources } }));
    let job = &objects[JOB]["spec"]["template"];
    assert_eq!(job["metadata"]["labels"]["team"], "a");
    assert_eq!(job["metadata"]["annotations"], json!({ "sidecar.istio.io/inject": "false" }));
    assert_eq!(env(container(&objects, JOB), "HTTPS_PROXY")["value"], "http://proxy");
    assert_eq!(job["spec"]["volumes"][0], json!({ "name": "ca", "configMap": { "name": "ca" } }));
    assert_eq!(job["spec"]["nodeSelector"], json!({ "pool": "data" }));
    assert_eq!(job["spec"]["terminationGracePeriodSeconds"], 7);
    assert_eq!(container(&objects, JOB)["resources"], json!({ "limits": { "memory": "1Gi" } }));
    let of_scheduler = made(json!({ "scheduler": { "podTemplate": template } }));
    assert_eq!(of_scheduler[JOB], made(json!({}))[JOB], "the template of the scheduler is that of the scheduler only");
}

#[test]
fn user_and_group_are_those_of_the_image() {
    for (name, object) in made(json!({})) {
        let Some(pod) = object.pointer("/spec/template/spec") else { continue };
        for (context, fields) in [(&pod["securityContext"], 2), (&pod["containers"][0]["securityContext"], 3)] {
            assert_eq!(context.as_object().map(serde_json::Map::len), Some(fields), "{name}: {context}");
        }
    }
    let template = json!({
        "podSecurityContext": { "runAsUser": 1000, "fsGroup": 2000 },
        "securityContext": { "readOnlyRootFilesystem": false, "capabilities": { "add": ["NET_BIND_SERVICE"] } },
    });
    let pod = &worker(&template)["spec"];
    assert_eq!(
        pod["securityContext"],
        json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" }, "runAsUser": 1000, "fsGroup": 2000 })
    );
    assert_eq!(
        pod["containers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": false,
            "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
        })
    );
}

#[test]
fn every_pod_has_a_bounded_folder_for_temporary_files() {
    let tmp = |template: Value| {
        let pod = worker(&template)["spec"].clone();
        (pod["volumes"].clone(), pod["containers"][0]["volumeMounts"].clone())
    };
    let (mount, limited) = (json!({ "name": "tmp", "mountPath": "/tmp" }), json!({ "sizeLimit": "256Mi" }));
    assert_eq!(tmp(json!({})), (json!([{ "name": "tmp", "emptyDir": limited }]), json!([mount])));
    let own = json!([{ "name": "tmp", "emptyDir": { "medium": "Memory" } }]);
    assert_eq!(tmp(json!({ "volumes": own })), (own, json!([mount])), "a volume with the name replaces it");
    let (disk, mounted) =
        (json!([{ "name": "disk", "emptyDir": {} }]), json!([{ "name": "disk", "mountPath": "/tmp/" }]));
    assert_eq!(tmp(json!({ "volumes": disk, "volumeMounts": mounted })), (disk, mounted), "so does a mount");
}

#[test]
fn service_account_is_created_unless_it_is_named() {
    let accounts = |account: Value| {
        let objects = made(json!({ "workers": { "podTemplate": { "serviceAccount": account } } }));
        let spec = &objects[WORKER]["spec"]["template"]["spec"];
        let used = (spec["serviceAccountName"].clone(), spec["automountServiceAccountToken"].clone());
        (objects.get("ServiceAccount/main-worker").cloned(), used)
    };
    let (created, used) = accounts(json!({ "annotations": { "eks.amazonaws.com/role-arn": "arn" } }));
    let created = created.expect("is created");
    assert_eq!(created["metadata"]["annotations"], json!({ "eks.amazonaws.com/role-arn": "arn" }));
    assert_eq!(used, (json!("main-worker"), json!(false)));
    let (created, used) = accounts(json!({ "name": "mine", "automountToken": true }));
    assert_eq!((created, used), (None, (json!("mine"), json!(true))));
}

#[test]
fn times_of_probes_and_of_rollouts_can_be_changed() {
    let probes = json!({ "startup": { "failureThreshold": 90 }, "readiness": { "periodSeconds": 5 } });
    let rollout = json!({ "maxSurge": 0, "maxUnavailable": "10%" });
    let objects = made(json!({ "api": { "probes": probes, "rollout": rollout } }));
    let api = container(&objects, "Deployment/main-api");
    let probe = |path: &str, period: i32, failures: i32| {
        json!({
            "httpGet": { "path": path, "port": "admin" },
            "periodSeconds": period, "timeoutSeconds": 3, "failureThreshold": failures,
        })
    };
    assert_eq!(api["startupProbe"], probe("/livez", 2, 90));
    assert_eq!(api["readinessProbe"], probe("/readyz", 5, 2));
    assert_eq!(api["livenessProbe"], probe("/livez", 10, 3));
    assert_eq!(objects["Deployment/main-api"]["spec"]["strategy"]["rollingUpdate"], rollout);
}

#[test]
fn spread_constraints_count_the_pods_of_the_role_by_default() {
    let own = json!({ "matchLabels": { "team": "a" } });
    let constraint = json!({ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" });
    let mut selecting = constraint.clone();
    selecting["labelSelector"] = own.clone();
    let template = worker(&json!({ "topologySpreadConstraints": [constraint, selecting] }));
    let constraints = &template["spec"]["topologySpreadConstraints"];
    assert_eq!(constraints[0]["labelSelector"]["matchLabels"], json!(names::selector("main", "worker")));
    assert_eq!(constraints[1]["labelSelector"], own);
    assert_eq!(
        worker(&json!({}))["spec"]["topologySpreadConstraints"][0]["matchLabelKeys"],
        json!(["pod-template-hash"])
    );
}

#[test]
fn object_with_an_invalid_template_is_left_as_it_is() {
    let cr = pulse_ingest(json!({ "workers": { "podTemplate": { "affinity": { "nodesAffinity": {} } } } }));
    let revision = revision::desired(&cr.spec);
    let inputs = Inputs { revision: Some(&revision), secrets: BTreeMap::new(), job: None, dev_reload: None };
    let ChildObjects { deployments, invalid, .. } = resources(&cr, &inputs);
    let roles: Vec<Role> = deployments.into_iter().map(|(role, _)| role).collect();
    assert_eq!(roles, [Role::Scheduler, Role::Api]);
    let message = "spec.workers.podTemplate.affinity: Kubernetes 1.33 has no field nodesAffinity".to_owned();
    assert_eq!(invalid, [InvalidObject { kind: "Deployment", name: "main-worker".into(), message }]);
}
