//! The values of `charts/pulse-ingest` for the network: how clients reach the API, and who may reach the pods.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::values::Object;

/// Ingress for the API.
#[derive(JsonSchema, Serialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ingress {
    /// Create an Ingress.
    enabled: bool,
    /// Ingress class. Defaults to the cluster's default class.
    class_name: String,
    /// Annotations of the Ingress.
    annotations: BTreeMap<String, String>,
    /// Host names of the API. Empty matches all host names.
    hosts: Vec<String>,
    /// TLS settings, in the format of an Ingress.
    tls: Vec<Object>,
}

/// HTTPRoute of the Gateway API for the API. A cluster without its CRD refuses the release.
#[derive(JsonSchema, Serialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HttpRoute {
    /// Create an HTTPRoute.
    enabled: bool,
    /// Annotations of the HTTPRoute.
    annotations: BTreeMap<String, String>,
    /// Gateways that the route attaches to, in the format of an HTTPRoute; required.
    parent_refs: Vec<Object>,
    /// Host names of the API. Empty matches all host names of the Gateways.
    hostnames: Vec<String>,
}

/// Additional Service of the API, with the name of the `PulseIngest`. The Service `<name>-api`, which the operator creates,
/// always has the type `ClusterIP` and the cluster's default IP family.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Service {
    /// Create the Service.
    enabled: bool,
    /// Type of the Service: `ClusterIP`, `NodePort` or `LoadBalancer`.
    #[serde(rename = "type")]
    type_: ServiceType,
    /// Annotations of the Service, such as those of a load balancer.
    annotations: BTreeMap<String, String>,
    /// Port of the Service. The API serves HTTP without TLS, unless `api.tls` is set.
    #[schemars(range(min = 1, max = 65535))]
    port: u16,
    /// Class of the load balancer. Defaults to the cluster's default class.
    load_balancer_class: String,
    /// Networks in CIDR notation from which the load balancer accepts connections. Empty accepts all.
    load_balancer_source_ranges: Vec<String>,
    /// `Local` keeps the client's address and sends connections only to nodes with an API pod. Only for `NodePort` and
    /// `LoadBalancer`. Defaults to `Cluster`.
    external_traffic_policy: ExternalTrafficPolicy,
    /// IP families of the Service: `SingleStack`, `PreferDualStack` or `RequireDualStack`. Empty is `SingleStack`.
    ip_family_policy: IpFamilyPolicy,
    /// IP families in their order, `IPv4` or `IPv6`. Empty is the cluster's default. The first one can not be changed
    /// later.
    #[schemars(length(max = 2))]
    ip_families: Vec<IpFamily>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            enabled: false,
            type_: ServiceType::ClusterIP,
            annotations: BTreeMap::new(),
            port: 8000,
            load_balancer_class: String::new(),
            load_balancer_source_ranges: Vec::new(),
            external_traffic_policy: ExternalTrafficPolicy::Unset,
            ip_family_policy: IpFamilyPolicy::Unset,
            ip_families: Vec::new(),
        }
    }
}

#[derive(JsonSchema, Serialize)]
#[expect(dead_code, reason = "only the schema names the others")]
enum ServiceType {
    ClusterIP,
    NodePort,
    LoadBalancer,
}

#[derive(JsonSchema, Serialize)]
#[expect(dead_code, reason = "only the schema names the others")]
enum ExternalTrafficPolicy {
    #[serde(rename = "")]
    Unset,
    Cluster,
    Local,
}

#[derive(JsonSchema, Serialize)]
#[expect(dead_code, reason = "only the schema names the others")]
enum IpFamilyPolicy {
    #[serde(rename = "")]
    Unset,
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}

#[derive(JsonSchema, Serialize)]
#[expect(dead_code, reason = "only the schema names them")]
enum IpFamily {
    IPv4,
    IPv6,
}

/// NetworkPolicies of the pods of API, workers, scheduler, console and migrations, and of `devDatastores`, which only these
/// pods and the operator may reach then.
#[derive(JsonSchema, Serialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NetworkPolicy {
    /// Create the NetworkPolicies.
    enabled: bool,
    /// Peers that may call the API, in the format of a NetworkPolicy. Empty allows every peer.
    api_from: Vec<Object>,
    /// Peers that may open the console, in the format of a NetworkPolicy. Empty allows no peer. `kubectl port-forward` is
    /// not affected.
    console_from: Vec<Object>,
    /// Peers that may read the metrics, in the format of a NetworkPolicy. Empty allows no peer. The kubelet's probes
    /// are not affected.
    metrics_from: Vec<Object>,
    /// Egress rules of all pods, in the format of a NetworkPolicy. They must allow DNS, PostgreSQL, Redis, and the OTLP
    /// collector if there is one. Empty does not restrict egress.
    egress: Vec<Object>,
    /// Peers at which API and console read the keys of an identity provider, on port 443, in the format of a NetworkPolicy.
    /// Used only with `egress`.
    identity_provider: Vec<Object>,
    /// Further egress rules of the workers, for what the processor calls, in the format of a NetworkPolicy. Used only with
    /// `egress`.
    workers_egress: Vec<Object>,
    /// Peers at which the scheduler reaches the archive, on port 443, in the format of a NetworkPolicy. Used only with
    /// `egress`.
    archive: Vec<Object>,
}
