//! The rights that the operator needs, and no others: a test compares them with the calls that it makes.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::api::ObjectMeta;

use crate::crd::GROUP;

/// The name of both roles.
const NAME: &str = "pulse-operator";

/// In every namespace that is watched.
pub fn watched() -> Vec<PolicyRule> {
    vec![
        rule(GROUP, &["pulseingests"], &["list", "watch"]),
        rule(GROUP, &["pulseingests/status"], &["patch"]),
        rule("apps", &["deployments"], &["create", "get", "list", "patch", "watch"]),
        // The number of pods, and nothing else of them.
        rule("apps", &["deployments/scale"], &["patch"]),
        rule("batch", &["jobs"], &["create", "get", "list", "patch", "watch"]),
        rule("", &["serviceaccounts", "services"], &["create", "get", "list", "patch", "watch"]),
        rule("policy", &["poddisruptionbudgets"], &["create", "delete", "get", "list", "patch", "watch"]),
        // Which worker goes first.
        rule("", &["pods"], &["list", "patch", "watch"]),
        // Those that an object names, one at a time: never a list of all.
        rule("", &["secrets"], &["get"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ]
}

/// In the operator's own namespace.
pub fn own() -> Vec<PolicyRule> {
    vec![
        rule("coordination.k8s.io", &["leases"], &["create", "get", "update"]),
        // The key of digests, made once.
        rule("", &["secrets"], &["create", "get"]),
    ]
}

/// For the operator of a whole cluster.
pub fn cluster_role() -> ClusterRole {
    ClusterRole { metadata: metadata(), rules: Some(watched()), aggregation_rule: None }
}

/// For the operator's own namespace; with `alone`, for an operator of that namespace alone.
pub fn role(alone: bool) -> Role {
    let mut rules = if alone { watched() } else { Vec::new() };
    rules.extend(own());
    Role { metadata: metadata(), rules: Some(rules) }
}

fn metadata() -> ObjectMeta {
    ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}
