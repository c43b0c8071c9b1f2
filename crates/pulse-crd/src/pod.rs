//! The pod template: what a PodSpec has, except what the product sets itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, HostAlias, PodDNSConfig, Toleration, TopologySpreadConstraint, VolumeMount,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounded::{annotations, labels};
use super::kubernetes::{self, Object};

/// Additional pod settings, in the format of a pod. Where the operator sets the same thing, such as a variable, its value
/// takes precedence.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Additional labels of the pods. Labels that the operator sets take precedence.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// Additional annotations of the pods. Annotations that the operator sets take precedence.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Service account of the pods. By default, the operator creates one without rights.
    #[serde(skip_serializing_if = "PodServiceAccount::is_default")]
    pub service_account: PodServiceAccount,
    /// Labels that a node must have to run the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub node_selector: BTreeMap<String, String>,
    /// Node taints that the pods tolerate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Scheduling constraints, in the format of the field `affinity` of a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "kubernetes::object")]
    pub affinity: Option<Object>,
    /// Constraints that spread the pods across nodes or zones. Without a `labelSelector`, a constraint counts the pods of
    /// the role. Defaults to one constraint that prefers different nodes for the pods of a revision.
    #[schemars(schema_with = "kubernetes::topology_spread_constraints")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Name of the PriorityClass of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Name of the RuntimeClass of the pods, such as `gvisor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// Name of the scheduler that places the pods. If not set, Kubernetes uses `default-scheduler`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scheduler_name: Option<String>,
    /// Additional environment variables, with a value or a reference to a Secret, a ConfigMap or a field of the pod.
    /// Variables that the operator sets take precedence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::env")]
    pub env: Vec<EnvVar>,
    /// Secrets and ConfigMaps whose keys become environment variables. `env` takes precedence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::env_from")]
    pub env_from: Vec<EnvFromSource>,
    /// Additional volumes, in the format of the field `volumes` of a pod. A volume with the name `tmp` replaces the empty
    /// directory of 256Mi that is mounted at `/tmp` by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::volumes")]
    pub volumes: Vec<Object>,
    /// Additional volume mounts of the role's container, below any path but `/etc/pulse`. A mount at `/tmp` replaces the
    /// default one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::volume_mounts")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Containers that run before the role's container, in the format of the field `initContainers` of a pod. With
    /// `restartPolicy: Always` they also run beside it, and end after it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::containers")]
    pub init_containers: Vec<Object>,
    /// Containers that run beside the role's container, in the format of the field `containers` of a pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::containers")]
    pub sidecars: Vec<Object>,
    /// Security settings of the pods, in the format of the field `securityContext` of a pod. They are merged with `runAsNonRoot: true` and the seccomp profile
    /// `RuntimeDefault`, and take precedence. User and group are those of the image unless they are set here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "kubernetes::object")]
    pub pod_security_context: Option<Object>,
    /// Security settings of the role's container, in the format of its field `securityContext`. They are merged with a read-only root file system, no privilege
    /// escalation and no capabilities, and take precedence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "kubernetes::object")]
    pub security_context: Option<Object>,
    /// DNS policy of the pods: `ClusterFirst`, `ClusterFirstWithHostNet`, `Default` or `None`. If not set, Kubernetes uses
    /// `ClusterFirst`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub dns_policy: Option<String>,
    /// DNS settings of the pods, in addition to those of the DNS policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "kubernetes::dns_config")]
    pub dns_config: Option<PodDNSConfig>,
    /// Host names in the file `/etc/hosts` of the pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "kubernetes::host_aliases")]
    pub host_aliases: Vec<HostAlias>,
    /// Time that a terminating pod has until it is killed, in seconds. If not set, it is computed from the time that the
    /// role takes to drain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub termination_grace_period_seconds: Option<u32>,
}

impl Default for PodTemplate {
    fn default() -> Self {
        Self {
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            service_account: PodServiceAccount::default(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: None,
            topology_spread_constraints: vec![TopologySpreadConstraint {
                max_skew: 1,
                topology_key: "kubernetes.io/hostname".into(),
                when_unsatisfiable: "ScheduleAnyway".into(),
                match_label_keys: Some(vec!["pod-template-hash".into()]),
                ..TopologySpreadConstraint::default()
            }],
            priority_class_name: None,
            runtime_class_name: None,
            scheduler_name: None,
            env: Vec::new(),
            env_from: Vec::new(),
            volumes: Vec::new(),
            volume_mounts: Vec::new(),
            init_containers: Vec::new(),
            sidecars: Vec::new(),
            pod_security_context: None,
            security_context: None,
            dns_policy: None,
            dns_config: None,
            host_aliases: Vec::new(),
            termination_grace_period_seconds: None,
        }
    }
}

/// Service account of pods: one by name, or the one that the operator creates.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.name) || !has(self.annotations)",
    "message": "annotations are those of the account that the operator creates: set them on the account name instead",
}]))]
pub struct PodServiceAccount {
    /// Name of an existing service account, which the operator neither creates nor changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Annotations of the service account that the operator creates, such as the role of a cloud provider.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
    /// AutomountToken mounts the token of the account for the Kubernetes API, which `pulse` does not need. Defaults to
    /// false.
    pub automount_token: bool,
}

impl PodServiceAccount {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
