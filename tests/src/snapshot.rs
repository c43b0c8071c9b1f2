//! What an operator made of a namespace, in a form that is the same whenever it means the same.

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

/// What differs from one run to the next: identities, times, addresses, and digests that are keyed anew.
const VOLATILE: [&str; 21] = [
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
    /// Every object that belongs to an ingest, and every ingest with its status, a line each.
    ///
    /// # Errors
    /// If something cannot be listed.
    pub async fn snapshot(&self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        lines.extend(self.owned::<Deployment>().await?);
        lines.extend(self.owned::<Job>().await?);
        lines.extend(self.owned::<Service>().await?);
        lines.extend(self.owned::<ServiceAccount>().await?);
        lines.extend(self.owned::<PodDisruptionBudget>().await?);
        for ingest in self.instances().list(&ListParams::default()).await? {
            lines.push(format!("PulseIngest {}", self.stable(serde_json::to_value(ingest)?)));
        }
        lines.sort();
        Ok(lines)
    }

    async fn owned<K>(&self) -> anyhow::Result<Vec<String>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Serialize
            + std::fmt::Debug,
    {
        let mut lines = Vec::new();
        for object in self.all::<K>().list(&ListParams::default()).await? {
            if object.meta().owner_references.is_some() {
                lines.push(format!("{} {}", K::kind(&()), self.stable(serde_json::to_value(object)?)));
            }
        }
        Ok(lines)
    }

    fn stable(&self, mut object: Value) -> String {
        strip(&mut object);
        let text = object.to_string().replace(&self.namespace, "NAMESPACE");
        // `main-migrate-0123456789`: the digits are of all inputs, also of what is keyed anew.
        let mut parts = text.split("-migrate-");
        let mut stable = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            stable.push_str("-migrate-");
            stable.push_str(part.trim_start_matches(|digit: char| digit.is_ascii_hexdigit()));
        }
        stable
    }
}

/// The lines that only one of the two has.
pub fn difference(left: &[String], right: &[String]) -> String {
    let only = |mark: &str, lines: &[String], others: &[String]| -> Vec<String> {
        lines.iter().filter(|line| !others.contains(line)).map(|line| format!("{mark} {line}")).collect()
    };
    [only("-", left, right), only("+", right, left)].concat().join("\n")
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
