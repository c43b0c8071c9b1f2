//! The values of `charts/pulse-operator`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use crate::monitor::{Dashboards, Monitor, Rules};
use crate::values::{Global, Image, Object, PullSecret, object};

/// Values of the chart pulse-operator.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Values {
    global: Global,
    /// Condition of this chart in a parent chart. Not used otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    /// Replaces the chart's name in the names of objects.
    name_override: String,
    /// Name of all objects. Defaults to a name derived from the release name.
    fullname_override: String,
    /// Labels added to all objects.
    common_labels: BTreeMap<String, String>,
    /// Image of the operator. A `PulseIngest` has a separate image in its spec.
    image: Image,
    /// Image pull Secrets of the operator, and of all pods that it creates. Each namespace needs Secrets with these
    /// names.
    image_pull_secrets: Vec<PullSecret>,
    crds: Crds,
    watch: Watch,
    rbac: Rbac,
    service_account: ServiceAccount,
    /// Hosts of Redis that the operator may connect to, to read the depth of queues: names, addresses, or `*.` and the
    /// end of names, such as `*.svc`. A host without a dot counts as `HOST.NAMESPACE.svc`. Empty allows all.
    redis_allowed_hosts: Vec<String>,
    /// Number of operator pods. One of them is the leader, the others are on standby.
    #[schemars(range(min = 1))]
    replica_count: u32,
    /// Resource requests and limits of each pod.
    resources: Object,
    /// Labels added to the pods.
    pod_labels: BTreeMap<String, String>,
    /// Annotations added to the pods.
    pod_annotations: BTreeMap<String, String>,
    /// Security settings of the pods. Without `runAsUser`, user and group are those of the image or of the cluster.
    pod_security_context: Object,
    /// Security settings of the container.
    security_context: Object,
    /// Node selector of the pods.
    node_selector: BTreeMap<String, String>,
    /// Tolerations of the pods.
    tolerations: Vec<Object>,
    /// Affinity of the pods.
    affinity: Object,
    /// Topology spread constraints of the pods.
    topology_spread_constraints: Vec<Object>,
    /// Priority class of the pods.
    priority_class_name: String,
    /// Additional environment variables. Each flag of `pulse operator` has one, see docs/reference/commands/pulse-operator.md.
    extra_env: Vec<Object>,
    pod_disruption_budget: PodDisruptionBudget,
    /// ServiceMonitor for the Prometheus operator.
    service_monitor: Monitor,
    /// PrometheusRule for the Prometheus operator, with the alerts on all instances. Enable it once per Prometheus.
    prometheus_rule: Rules,
    /// Four dashboards for Grafana. Enable them once per Grafana.
    dashboards: Dashboards,
    network_policy: NetworkPolicy,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            global: Global::default(),
            enabled: None,
            name_override: String::new(),
            fullname_override: String::new(),
            common_labels: BTreeMap::new(),
            image: Image::default(),
            image_pull_secrets: Vec::new(),
            crds: Crds { enabled: true, keep: true },
            watch: Watch { scope: Scope::Namespaces, namespaces: Vec::new() },
            rbac: Rbac { create: true, aggregate: false },
            service_account: ServiceAccount { create: true, name: String::new(), annotations: BTreeMap::new() },
            redis_allowed_hosts: Vec::new(),
            replica_count: 2,
            resources: object(json!({
                "requests": { "cpu": "20m", "memory": "64Mi" },
                "limits": { "memory": "256Mi" },
            })),
            pod_labels: BTreeMap::new(),
            pod_annotations: BTreeMap::new(),
            pod_security_context: object(
                json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } }),
            ),
            security_context: object(json!({
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] },
            })),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: Object::new(),
            topology_spread_constraints: Vec::new(),
            priority_class_name: String::new(),
            extra_env: Vec::new(),
            pod_disruption_budget: PodDisruptionBudget { enabled: true, max_unavailable: 1 },
            service_monitor: Monitor::default(),
            prometheus_rule: Rules::default(),
            dashboards: Dashboards::default(),
            network_policy: NetworkPolicy { enabled: false, metrics_from: Vec::new(), egress: Vec::new() },
        }
    }
}

/// CustomResourceDefinition of `PulseIngest`.
#[derive(JsonSchema, Serialize)]
struct Crds {
    /// Install the CRD, and upgrade it with the chart.
    enabled: bool,
    /// Keep the CRD when the chart is uninstalled. Deleting the CRD deletes every `PulseIngest`.
    keep: bool,
}

/// Namespaces that the operator watches.
#[derive(JsonSchema, Serialize)]
struct Watch {
    /// `namespaces` watches the listed namespaces, with a Role in each. `cluster` watches all namespaces, with a
    /// ClusterRole, which allows to read every Secret of the cluster by its name.
    scope: Scope,
    /// Namespaces to watch with the scope `namespaces`. Each must exist. Defaults to the release's namespace.
    namespaces: Vec<Namespace>,
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    #[expect(dead_code, reason = "only the schema names it")]
    Cluster,
    Namespaces,
}

/// Name of a namespace.
#[derive(JsonSchema, Serialize)]
struct Namespace(#[schemars(length(min = 1, max = 63), pattern("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))] String);

/// RBAC objects.
#[derive(JsonSchema, Serialize)]
struct Rbac {
    /// Create the roles of the operator and their bindings. If false, grant the same rights to its service account.
    create: bool,
    /// Aggregate rights on `PulseIngest` to the ClusterRoles view, edit and admin, for the users of every namespace. Needs
    /// the right to create ClusterRoles.
    aggregate: bool,
}

/// Service account of the operator.
#[derive(JsonSchema, Serialize)]
struct ServiceAccount {
    /// Create the service account.
    create: bool,
    /// Name of the service account. Defaults to a name derived from the release name, or to `default` if it is not
    /// created.
    name: String,
    /// Annotations of the service account.
    annotations: BTreeMap<String, String>,
}

/// PodDisruptionBudget of the operator. Only created if `replicaCount` is more than 1.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodDisruptionBudget {
    /// Create a PodDisruptionBudget.
    enabled: bool,
    /// Maximum number of pods that may be unavailable during a disruption.
    #[schemars(range(min = 1))]
    max_unavailable: u32,
}

/// NetworkPolicy of the operator, which serves only probes and metrics.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct NetworkPolicy {
    /// Create a NetworkPolicy.
    enabled: bool,
    /// Peers that may read the metrics, in the format of a NetworkPolicy. Empty allows no peer. The kubelet's probes
    /// are not affected.
    metrics_from: Vec<Object>,
    /// Egress rules, in the format of a NetworkPolicy. They must allow the API server, DNS and every Redis. Empty does
    /// not restrict egress.
    egress: Vec<Object>,
}
