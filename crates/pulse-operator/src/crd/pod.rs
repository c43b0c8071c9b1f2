//! Pod settings that a `PulseIngest` exposes: a subset of PodSpec, so that upgrades of the operator stay predictable.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounded::{Quantities, annotations, labels, quantities};

/// CPU and memory requests and limits of a container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Amounts that are reserved for the container. Defaults to `cpu: 100m` and `memory: 128Mi`.
    #[schemars(schema_with = "quantities", default = "default_requests")]
    pub requests: Quantities,
    /// Amounts that the container cannot exceed. Defaults to `memory: 512Mi`.
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

/// Additional pod settings, a subset of PodSpec.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Additional labels of the pods. Labels that the operator sets take precedence.
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// Additional annotations of the pods. Annotations that the operator sets take precedence.
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node must have to run the pods.
    #[schemars(schema_with = "labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Node taints that the pods tolerate.
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// Constraints that spread the pods across nodes or zones. Defaults to one constraint that prefers different nodes.
    #[schemars(length(max = 4))]
    pub topology_spread: Vec<TopologySpread>,
    /// Additional environment variables. Variables that the operator sets take precedence.
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// Name of the PriorityClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

impl PodTemplate {
    /// Returns a template with the node selector, the tolerations and the priority class only.
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

/// Toleration of a node taint.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. If not set, taints with any key match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key: Option<String>,
    /// Relation between key and value: `Exists` or `Equal`. Kubernetes defaults to `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub operator: Option<String>,
    /// Value of the taint. Must not be set with the operator `Exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub value: Option<String>,
    /// Effect of the taint: `NoSchedule`, `PreferNoSchedule` or `NoExecute`. If not set, every effect matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub effect: Option<String>,
    /// Time for which a taint with the effect `NoExecute` is tolerated, in seconds. If not set, the taint is tolerated
    /// without a time limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub toleration_seconds: Option<i64>,
}

/// Constraint that spreads pods across topology domains.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// Maximum difference between the numbers of pods in any two topology domains.
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,
    /// Node label whose values are the topology domains, such as `topology.kubernetes.io/zone`.
    #[schemars(length(min = 1, max = 253))]
    pub topology_key: String,
    /// Handling of a pod that cannot satisfy the constraint: `DoNotSchedule` leaves it pending, `ScheduleAnyway`
    /// schedules it.
    pub when_unsatisfiable: Unsatisfiable,
}

/// Handling of a pod that cannot satisfy a topology spread constraint.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub enum Unsatisfiable {
    DoNotSchedule,
    ScheduleAnyway,
}

/// Environment variable of a container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Value of the variable.
    #[schemars(length(max = 4096))]
    pub value: String,
}
