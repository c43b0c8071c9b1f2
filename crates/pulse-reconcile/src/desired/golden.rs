//! The objects that the operator builds, compared with files. A pod template that differs restarts the pods of every
//! instance when the operator is upgraded, so a difference has to be wanted.

use std::path::Path;

use pulse_crd::SecretKey;
use pulse_crd::fixture::pulse_ingest;
use pulse_crd::yaml;
use serde_json::{Value, json};

use super::*;
use crate::observed::Observed;
use crate::plan::plan;
use crate::revision;
use crate::secret_uses::referenced;
use crate::secrets::{DigestKey, SecretRead, SecretValue};

/// Set this variable to write the files.
const ACCEPT: &str = "PULSE_ACCEPT_GOLDEN";

/// Every field that has an effect on a pod.
fn every_field() -> Value {
    let template = json!({
        "labels": { "team": "shop" },
        "annotations": { "sidecar.istio.io/inject": "false" },
        "serviceAccount": { "annotations": { "example.com/role": "reader" }, "automountToken": true },
        "nodeSelector": { "disk": "fast" },
        "tolerations": [{ "key": "gpu", "operator": "Exists" }],
        "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 1,
            "podAffinityTerm": { "topologyKey": "zone", "labelSelector": { "matchLabels": { "team": "shop" } } },
        }] } },
        "topologySpreadConstraints": [{ "maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" }],
        "priorityClassName": "high",
        "runtimeClassName": "gvisor",
        "schedulerName": "other",
        "env": [{ "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "own", "key": "token" } } }],
        "envFrom": [{ "configMapRef": { "name": "settings" } }],
        "volumes": [{ "name": "data", "emptyDir": { "sizeLimit": "1Gi" } }],
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        "initContainers": [{ "name": "fetch", "image": "example.com/fetch:1" }],
        "sidecars": [{ "name": "proxy", "image": "example.com/proxy:1" }],
        "podSecurityContext": { "fsGroup": 1000 },
        "securityContext": { "runAsUser": 1000 },
        "dnsPolicy": "ClusterFirst",
        "dnsConfig": { "options": [{ "name": "ndots", "value": "1" }] },
        "hostAliases": [{ "ip": "192.0.2.1", "hostnames": ["db"] }],
    });
    json!({
        "commonLabels": { "owner": "shop" },
        "commonAnnotations": { "example.com/owner": "shop" },
        "image": { "pullPolicy": "Always", "pullSecrets": [{ "name": "pull" }] },
        "database": { "caSecretRef": { "name": "db-ca", "key": "ca.crt" }, "clientCertificateSecretRef": { "name": "db-client" }, "migrationUrlSecretRef": { "name": "owner", "key": "uri" }, "servingRole": "serving", "readRole": "reports", "maxConnectionsTotal": 200 },
        "redis": { "caSecretRef": { "name": "redis-ca", "key": "ca.crt" }, "clientCertificateSecretRef": { "name": "redis-client" } },
        "auth": {
            "jwtSecretRef": null, "publicKeySecretRef": { "name": "keys", "key": "a.pem" }, "issuer": "https://id",
            "audience": "pulse", "defaultScopes": ["events:write"], "maxTokenAgeSeconds": 3600, "autoProvision": true,
        },
        "requireTls": true,
        "retention": { "eventDays": 400, "historyDays": 90, "deadTaskDays": 30, "archiveUrl": "s3://archive/pulse" },
        "api": { "tls": { "secretRef": { "name": "api-tls" } }, "podTemplate": template, "resources": { "limits": { "memory": "1Gi" } } },
        "workers": { "podTemplate": template, "concurrency": 8, "drainTimeoutSeconds": 100 },
        "scheduler": { "podTemplate": template, "replicas": 2 },
        "console": { "enabled": true, "podTemplate": template },
        "migrations": { "podTemplate": template, "policy": "Plan" },
        "tasks": { "timeoutSeconds": 30, "retry": { "maxAttempts": 7 } },
    })
}

/// The `PulseIngest` of a file in `manifests/samples/`.
fn sample(text: &str) -> PulseIngest {
    let documents = text.split("\n---").map(|document| yaml::read::<Value>(document).expect("YAML"));
    let instance = documents.into_iter().find(|object| object["kind"] == "PulseIngest").expect("a PulseIngest");
    let mut cr = pulse_ingest(json!({}));
    cr.spec = serde_json::from_value(instance["spec"].clone()).expect("a valid spec");
    cr
}

/// The Job with which a reconcile begins, and all objects after the migration, as a YAML stream.
fn rendered(cr: &PulseIngest, dev_reload: Option<&Path>) -> String {
    let key = DigestKey::new(vec![7; 32]);
    let value = |reference: &SecretKey| SecretRead::Found(SecretValue::new(reference.name.clone().into()));
    let secrets = referenced(cr).into_iter().map(|reference| (reference.clone(), value(&reference))).collect();
    let observed = Observed { secrets, ..Observed::default() };
    let before = plan(cr, &observed, &key, jiff::Timestamp::UNIX_EPOCH);
    let mut migrated = cr.clone();
    migrated.status.get_or_insert_default().active_revision = Some(revision::desired(&cr.spec));
    let after = plan(&migrated, &observed, &key, jiff::Timestamp::UNIX_EPOCH);
    let inputs = Inputs {
        revision: after.active.as_ref(),
        secrets: after.secrets,
        job: before.migration.create.as_ref(),
        dev_reload,
    };
    let ChildObjects { service_accounts, migration, services, disruption_budgets, deployments, invalid } =
        resources(cr, &inputs);
    assert_eq!(invalid, []);
    assert_eq!(deployments.len(), Role::of(&cr.spec).count());
    let mut documents: Vec<String> = Vec::new();
    documents.extend(service_accounts.iter().map(|object| yaml::print(object).expect("prints")));
    documents.extend(migration.iter().map(|object| yaml::print(object).expect("prints")));
    documents.extend(services.iter().map(|object| yaml::print(object).expect("prints")));
    documents.extend(disruption_budgets.iter().map(|object| yaml::print(object).expect("prints")));
    documents.extend(deployments.iter().map(|(_, object)| yaml::print(object).expect("prints")));
    documents.join("---\n")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "not a part of pulse")]
fn objects_are_those_of_the_golden_files_so_that_an_upgrade_restarts_no_pod() {
    let samples = [
        ("minimal", include_str!("../../../../manifests/samples/minimal.yaml")),
        ("production", include_str!("../../../../manifests/samples/production.yaml")),
        ("cnpg-valkey", include_str!("../../../../manifests/samples/cnpg-valkey.yaml")),
        ("external-scaling", include_str!("../../../../manifests/samples/external-scaling.yaml")),
    ];
    let mut all: Vec<(&str, String)> =
        samples.into_iter().map(|(name, text)| (name, rendered(&sample(text), None))).collect();
    all.push(("every-field", rendered(&pulse_ingest(every_field()), None)));
    all.push(("development", rendered(&pulse_ingest(json!({})), Some(Path::new("/dev-reload/pulse")))));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/desired/golden");
    let mut different = Vec::new();
    for (name, text) in all {
        let file = folder.join(format!("{name}.yaml"));
        if std::env::var_os(ACCEPT).is_some() {
            std::fs::write(&file, &text).expect("writes the file");
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        if let Some((line, (was, is))) = golden.lines().zip(text.lines()).enumerate().find(|(_, (was, is))| was != is) {
            different.push(format!("{}:{}: was `{was}`, is `{is}`", file.display(), line + 1));
        } else if golden != text {
            different.push(format!("{}: has another length", file.display()));
        }
    }
    assert!(
        different.is_empty(),
        "pods of running instances would restart; if that is wanted, run with {ACCEPT}=1:\n{}",
        different.join("\n")
    );
}
