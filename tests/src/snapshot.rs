//! Snapshot of the objects that an operator created in a namespace, without the fields that differ between runs.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Resource;
use kube::api::ListParams;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::operator::OperatorEnv;

/// Fields that differ between runs: identities, times, addresses, and digests with a random key.
const VOLATILE_FIELDS: [&str; 21] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "generation",
    "observedGeneration",
    "clusterIP",
    "clusterIPs",
    "lastTransitionTime",
    "time",
    "finishedAt",
    "startTime",
    "completionTime",
    "autoscaling",
    "jobName",
    "pulseboard.dev/applied",
    "pulseboard.dev/secrets",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-name",
    "controller-uid",
    "job-name",
];

impl OperatorEnv {
    /// Every object that is owned by a PulseIngest, and every PulseIngest with its status, one per line and sorted.
    ///
    /// # Errors
    /// If a kind cannot be listed.
    pub async fn snapshot(&self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        lines.extend(self.owned_objects::<Deployment>().await?);
        lines.extend(self.owned_objects::<Job>().await?);
        lines.extend(self.owned_objects::<Service>().await?);
        lines.extend(self.owned_objects::<ServiceAccount>().await?);
        lines.extend(self.owned_objects::<PodDisruptionBudget>().await?);
        for instance in self.instances().list(&ListParams::default()).await? {
            lines.push(format!("PulseIngest {}", self.normalise(serde_json::to_value(instance)?)));
        }
        lines.sort();
        Ok(lines)
    }

    async fn owned_objects<K>(&self) -> anyhow::Result<Vec<String>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
    {
        let mut lines = Vec::new();
        for object in self.api::<K>().list(&ListParams::default()).await? {
            if object.meta().owner_references.is_some() {
                lines.push(format!("{} {}", K::kind(&()), self.normalise(serde_json::to_value(object)?)));
            }
        }
        Ok(lines)
    }

    fn normalise(&self, mut object: Value) -> String {
        remove_volatile_fields(&mut object);
        let text = object.to_string().replace(&self.namespace, "NAMESPACE");
        // `main-migrate-0123456789`: the suffix is a hash of all inputs, including digests with a random key.
        let mut parts = text.split("-migrate-");
        let mut normalised = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            normalised.push_str("-migrate-");
            normalised.push_str(part.trim_start_matches(|digit: char| digit.is_ascii_hexdigit()));
        }
        normalised
    }
}

/// Lines that only one of the two snapshots has: `-` only in `left`, `+` only in `right`.
pub fn difference(left: &[String], right: &[String]) -> String {
    let only = |mark: &str, lines: &[String], others: &[String]| -> Vec<String> {
        lines.iter().filter(|line| !others.contains(line)).map(|line| format!("{mark} {line}")).collect()
    };
    [only("-", left, right), only("+", right, left)].concat().join("\n")
}

fn remove_volatile_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !VOLATILE_FIELDS.contains(&name.as_str()));
            fields.values_mut().for_each(remove_volatile_fields);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_volatile_fields),
        _ => {}
    }
}
