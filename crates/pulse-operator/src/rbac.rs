//! RBAC rules of the operator. A test compares them with the requests that it makes.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::ObjectMeta;
use pulse_crd::GROUP;

/// Name of the ClusterRole and of the Role.
const NAME: &str = "pulse-operator";

/// Rules for every watched namespace.
pub fn watched() -> Vec<PolicyRule> {
    vec![
        rule(GROUP, &["pulseingests"], &["list", "watch"]),
        rule(GROUP, &["pulseingests/status"], &["patch"]),
        // `delete` of Deployments, ServiceAccounts and Services is for those of a console that was switched off.
        rule("apps", &["deployments"], &["create", "delete", "get", "list", "patch", "watch"]),
        // Replicas only.
        rule("apps", &["deployments/scale"], &["patch"]),
        // `delete` is for Jobs whose container never started, or has ended beside one that does not.
        rule("batch", &["jobs"], &["create", "delete", "get", "list", "patch", "watch"]),
        rule("", &["serviceaccounts", "services"], &["create", "delete", "get", "list", "patch", "watch"]),
        // Only the ConfigMap of a console is read, by its name: neither `list` nor `watch`.
        rule("", &["configmaps"], &["create", "delete", "get", "patch"]),
        rule("policy", &["poddisruptionbudgets"], &["create", "delete", "get", "list", "patch", "watch"]),
        // `patch` sets the pod deletion cost.
        rule("", &["pods"], &["list", "patch", "watch"]),
        // Only Secrets that an object references are read, one at a time.
        rule("", &["secrets"], &["get"]),
        // `list` finds why the pods of a Job are rejected.
        rule("events.k8s.io", &["events"], &["create", "list", "patch"]),
    ]
}

/// Rules for the operator's namespace.
pub fn own() -> Vec<PolicyRule> {
    vec![
        rule("coordination.k8s.io", &["leases"], &["create", "get", "update"]),
        // The digest key, which is created once.
        rule("", &["secrets"], &["create", "get"]),
    ]
}

/// Returns the ClusterRole of an operator that watches the whole cluster.
pub fn cluster_role() -> ClusterRole {
    ClusterRole { metadata: metadata(), rules: Some(watched()), aggregation_rule: None }
}

/// Returns the Role for the operator's namespace. With `namespaced`, it also has the rules for an operator that only
/// watches this namespace.
pub fn role(namespaced: bool) -> Role {
    let mut rules = if namespaced { watched() } else { Vec::new() };
    rules.extend(own());
    Role { metadata: metadata(), rules: Some(rules) }
}

fn metadata() -> ObjectMeta {
    ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(strings(resources)),
        verbs: strings(verbs),
        ..PolicyRule::default()
    }
}
