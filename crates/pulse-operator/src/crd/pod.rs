//! What pods may be told: a short list.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounded::{Quantities, annotations, labels, quantities};

/// What a pod may use.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What is kept free for it.
    #[schemars(schema_with = "quantities", default = "default_requests")]
    pub requests: Quantities,
    /// What it cannot exceed.
    #[schemars(schema_with = "quantities", default = "default_limits")]
    pub limits: Quantities,
}

impl Default for Resources {
    fn default() -> Self {
        Self { requests: default_requests(), limits: default_limits() }
    }
}

fn default_requests() -> Quantities {
    amounts([("cpu", "100m"), ("memory", "128Mi")])
}

fn default_limits() -> Quantities {
    amounts([("memory", "512Mi")])
}

fn amounts<const N: usize>(amounts: [(&str, &str); N]) -> Quantities {
    amounts.into_iter().map(|(name, amount)| (name.to_owned(), IntOrString::String(amount.to_owned()))).collect()
}

/// What else pods have. A short list and not a PodSpec, so that an upgrade stays predictable.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// More labels; ours win.
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// More annotations; ours win.
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
    /// The nodes that they may run on.
    #[schemars(schema_with = "labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that they tolerate.
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// How they are spread.
    #[schemars(length(max = 4))]
    pub topology_spread: Vec<TopologySpread>,
    /// More variables; ours win.
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// Their priority class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

impl PodTemplate {
    /// Of it, only which nodes may run a pod, and how urgent it is.
    pub(crate) fn placement(&self) -> Self {
        let Self { node_selector, tolerations, priority_class_name, .. } = self.clone();
        let nothing = Self { topology_spread: Vec::new(), ..Self::default() };
        Self { node_selector, tolerations, priority_class_name, ..nothing }
    }
}

impl Default for PodTemplate {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            topology_spread: vec![TopologySpread {
                max_skew: 1,
                topology_key: "kubernetes.io/hostname".into(),
                when_unsatisfiable: Unsatisfiable::ScheduleAnyway,
            }],
            env: Vec::new(),
            priority_class_name: None,
        }
    }
}

/// A taint that pods tolerate.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Its key; every key if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key: Option<String>,
    /// `Exists` or `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub operator: Option<String>,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`; every effect if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub effect: Option<String>,
    /// How long, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub toleration_seconds: Option<i64>,
}

/// How pods are spread.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// How many more pods one place may have than another.
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,
    /// The node label that names a place.
    #[schemars(length(min = 1, max = 253))]
    pub topology_key: String,
    /// What happens if that cannot be had.
    pub when_unsatisfiable: Unsatisfiable,
}

/// What happens if pods cannot be spread.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub enum Unsatisfiable {
    DoNotSchedule,
    ScheduleAnyway,
}

/// A variable of a container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 4096))]
    pub value: String,
}
