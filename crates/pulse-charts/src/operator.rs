//! The values of `charts/pulse-operator`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::values::{Global, Image, Object, PullSecret};

/// Values of the operator's chart.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Values {
    global: Global,
    /// Read by a parent chart alone, as the condition of this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    /// In names, instead of the chart's name.
    name_override: String,
    /// The name of everything, instead of one made of the release's name.
    fullname_override: String,
    /// Labels of everything.
    common_labels: BTreeMap<String, String>,
    /// The operator's image. A `PulseIngest` names its own.
    image: Image,
    /// Secrets that let nodes pull images: of the operator here, and of the same names for every pod that it makes, in
    /// that pod's namespace.
    image_pull_secrets: Vec<PullSecret>,
    crds: Crds,
    watch: Watch,
    rbac: Rbac,
    service_account: ServiceAccount,
    /// How many operators there are. One works, the others wait for its Lease.
    #[schemars(range(min = 1))]
    replica_count: u32,
    /// What each operator may use.
    resources: Object,
    /// Labels of its pods.
    pod_labels: BTreeMap<String, String>,
    /// Annotations of its pods.
    pod_annotations: BTreeMap<String, String>,
    /// The nodes that its pods may run on.
    node_selector: BTreeMap<String, String>,
    /// Taints that its pods tolerate.
    tolerations: Vec<Object>,
    /// Where its pods go.
    affinity: Object,
    /// How its pods are spread.
    topology_spread_constraints: Vec<Object>,
    /// Their priority class.
    priority_class_name: String,
    /// More variables: the flags of `pulse operator` have one each, see OPERATIONS.md.
    extra_env: Vec<Object>,
    pod_disruption_budget: PodDisruptionBudget,
    service_monitor: ServiceMonitor,
    network_policy: NetworkPolicy,
}

impl Default for Values {
    fn default() -> Self {
        let resources = serde_json::json!({
            "requests": { "cpu": "20m", "memory": "64Mi" },
            "limits": { "memory": "256Mi" },
        });
        Self {
            global: Global::default(),
            enabled: None,
            name_override: String::new(),
            fullname_override: String::new(),
            common_labels: BTreeMap::new(),
            image: Image::default(),
            image_pull_secrets: Vec::new(),
            crds: Crds { enabled: true, keep: true },
            watch: Watch { scope: Scope::Cluster },
            rbac: Rbac { create: true, aggregate: true },
            service_account: ServiceAccount { create: true, name: String::new(), annotations: BTreeMap::new() },
            replica_count: 2,
            resources: resources.as_object().cloned().unwrap_or_default(),
            pod_labels: BTreeMap::new(),
            pod_annotations: BTreeMap::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            affinity: Object::new(),
            topology_spread_constraints: Vec::new(),
            priority_class_name: String::new(),
            extra_env: Vec::new(),
            pod_disruption_budget: PodDisruptionBudget { enabled: true, max_unavailable: 1 },
            service_monitor: ServiceMonitor {
                enabled: false,
                render_mode: RenderMode::SkipIfMissing,
                interval: "30s".into(),
                labels: BTreeMap::new(),
            },
            network_policy: NetworkPolicy { enabled: false, metrics_from: Vec::new(), egress: Vec::new() },
        }
    }
}

/// The definition of `PulseIngest`.
#[derive(JsonSchema, Serialize)]
struct Crds {
    /// Install it, and upgrade it with the chart.
    enabled: bool,
    /// Keep it when the chart is uninstalled: without it, every `PulseIngest` would go too.
    keep: bool,
}

/// Where the operator looks.
#[derive(JsonSchema, Serialize)]
struct Watch {
    /// `cluster`: every namespace. `namespace`: the release's alone, without any ClusterRole.
    scope: Scope,
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
enum Scope {
    Cluster,
    #[expect(dead_code, reason = "only the schema names it")]
    Namespace,
}

/// Rights.
#[derive(JsonSchema, Serialize)]
struct Rbac {
    /// Make the operator's roles and bind them. Otherwise somebody else gives its service account the same rights.
    create: bool,
    /// Let those who have the roles view, edit or admin use `PulseIngest` as well. Only with scope `cluster`.
    aggregate: bool,
}

/// The operator's service account.
#[derive(JsonSchema, Serialize)]
struct ServiceAccount {
    /// Make it.
    create: bool,
    /// Its name; made of the release's name if empty, and `default` if it is not made.
    name: String,
    /// Its annotations.
    annotations: BTreeMap<String, String>,
}

/// How many operators may be evicted at once. Only with more than one.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct PodDisruptionBudget {
    /// Make it.
    enabled: bool,
    /// The most that may be away.
    #[schemars(range(min = 1))]
    max_unavailable: u32,
}

/// For the Prometheus operator.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceMonitor {
    /// Make it.
    enabled: bool,
    /// What happens where the cluster does not know ServiceMonitors.
    render_mode: RenderMode,
    /// Between two scrapes.
    interval: String,
    /// More labels, by which Prometheus finds it.
    labels: BTreeMap<String, String>,
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
enum RenderMode {
    SkipIfMissing,
    #[expect(dead_code, reason = "only the schema names it")]
    FailIfMissing,
    #[expect(dead_code, reason = "only the schema names it")]
    AlwaysRender,
}

/// Who may reach the operator, which only serves probes and metrics.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct NetworkPolicy {
    /// Make it.
    enabled: bool,
    /// Peers that may read the metrics; nobody if empty. Probes come from the node.
    metrics_from: Vec<Object>,
    /// Rules for what the operator may reach: the API server, DNS and every Redis. No limits if empty.
    egress: Vec<Object>,
}
