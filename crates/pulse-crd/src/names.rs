//! Names, labels and annotations of everything that the operator writes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube_core::{Resource, ResourceExt};
use sha2::{Digest, Sha256};

use crate::{GROUP, PulseIngest, PulseIngestSpec, ServerTlsSpec};

/// Field manager, Event source and value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "pulse-operator";
/// Field manager of replicas and pod deletion costs.
pub const SCALER: &str = "pulse-scaler";
/// Annotation of pod templates: digest of the values of the Secrets that the role uses. A change restarts the pods.
pub const SECRETS: &str = "pulseboard.dev/secrets";
/// Annotation of pod templates: the most connections to PostgreSQL of a pod.
pub const CONNECTIONS: &str = "pulseboard.dev/connections";
/// Annotation of child objects: hash of the object that was applied last.
pub const APPLIED: &str = "pulseboard.dev/applied";
/// Annotation of Deployments: their revision, as JSON.
pub const REVISION: &str = "pulseboard.dev/revision";
/// Annotation of pods: the ReplicaSet controller removes pods with a lower cost first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Annotation of a `PulseIngest`: the operator that shall reconcile it, as the namespace and the name of its Lease.
pub const OPERATOR: &str = "pulseboard.dev/operator";
/// Annotation of a `PulseIngest`: a new value makes the operator read the Secrets at once.
pub const REFRESH: &str = "pulseboard.dev/refresh";
/// Selects all objects that the operator manages.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=pulse-operator";

/// A part of an instance with its own pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the roles of the binary")]
pub enum Role {
    Api,
    Worker,
    Scheduler,
    Console,
}

impl Role {
    /// All roles, in the order in which they are rolled out.
    pub const ALL: [Self; 4] = [Self::Scheduler, Self::Worker, Self::Api, Self::Console];

    /// The roles of an instance: all, or all but the console.
    pub fn of(spec: &PulseIngestSpec) -> impl Iterator<Item = Self> {
        let has_console = spec.console.enabled;
        Self::ALL.into_iter().filter(move |role| *role != Self::Console || has_console)
    }

    /// Subcommand of the binary, and value of `app.kubernetes.io/component`.
    pub const fn component(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
            Self::Console => "console",
        }
    }

    /// Whether clients send tokens to the role.
    pub const fn verifies_tokens(self) -> bool {
        matches!(self, Self::Api | Self::Console)
    }

    /// TLS of the role's ports.
    pub fn tls(self, spec: &PulseIngestSpec) -> Option<&ServerTlsSpec> {
        match self {
            Self::Api => spec.api.tls.as_ref(),
            Self::Console => spec.console.tls.as_ref(),
            Self::Worker | Self::Scheduler => None,
        }
    }
}

/// Value of `app.kubernetes.io/component` of migration Jobs and their pods.
pub const MIGRATION: &str = "migration";

/// Returns `<cr>-<component>`.
pub fn child(cr: &PulseIngest, component: &str) -> String {
    format!("{}-{component}", cr.name_any())
}

/// Returns the labels that select the pods of a component. They can never change, because a Deployment's selector is
/// immutable.
pub fn selector(instance: &str, component: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "pulse"),
        ("app.kubernetes.io/instance", instance),
        ("app.kubernetes.io/component", component),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// Returns the selector as a LabelSelector.
pub fn label_selector(instance: &str, component: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(instance, component)), match_expressions: None }
}

/// Returns the selector in the form of a query.
pub fn selector_text(instance: &str, component: &str) -> String {
    let labels: Vec<String> =
        selector(instance, component).iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(",")
}

/// Returns the labels that the operator sets on a component's objects and pods. They win over all others.
pub fn own_labels(instance: &str, component: &str) -> BTreeMap<String, String> {
    let mut labels = selector(instance, component);
    labels.insert("app.kubernetes.io/managed-by".into(), MANAGER.into());
    labels.insert("app.kubernetes.io/part-of".into(), "pulseboard-ingest".into());
    labels
}

/// Returns the metadata of a child object, with the common labels and annotations of the spec and its owner: the garbage collector removes it even if no operator runs.
pub fn metadata(cr: &PulseIngest, name: String, component: &str) -> ObjectMeta {
    let mut labels = cr.spec.common_labels.clone();
    labels.extend(own_labels(&cr.name_any(), component));
    ObjectMeta {
        name: Some(name),
        namespace: cr.namespace(),
        labels: Some(labels),
        annotations: common_annotations(cr),
        owner_references: Some(vec![owner(cr)]),
        ..ObjectMeta::default()
    }
}

/// Returns the common annotations of the spec. Those that only the operator sets are left out.
pub fn common_annotations(cr: &PulseIngest) -> Option<BTreeMap<String, String>> {
    let own = format!("{GROUP}/");
    let common = cr.spec.common_annotations.iter().filter(|(name, _)| !name.starts_with(&own));
    let common: BTreeMap<_, _> = common.map(|(name, value)| (name.clone(), value.clone())).collect();
    (!common.is_empty()).then_some(common)
}

fn owner(cr: &PulseIngest) -> OwnerReference {
    // Children do not block the deletion of their owner.
    OwnerReference { block_owner_deletion: None, ..cr.controller_owner_ref(&()).unwrap_or_default() }
}

/// Reports whether `cr` is the controller of the object.
pub fn is_owned(metadata: &ObjectMeta, cr: &PulseIngest) -> bool {
    let controllers = metadata.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true));
    cr.uid().is_some_and(|uid| controllers.into_iter().any(|owner| owner.uid == uid))
}

/// Reports whether the controller of the object is a deleted object with the name of `cr`. The garbage collector is
/// about to remove it.
pub fn is_owned_by_predecessor(metadata: &ObjectMeta, cr: &PulseIngest) -> bool {
    let Some(own) = cr.controller_owner_ref(&()) else { return false };
    let mut controllers = metadata.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true));
    controllers.any(|owner| (&owner.kind, &owner.name) == (&own.kind, &own.name) && owner.uid != own.uid)
}

/// Returns `<namespace>/<name>`, the instance that the database and the Redis keys belong to.
pub fn instance_id(cr: &PulseIngest) -> String {
    format!("{}/{}", namespace(cr), cr.name_any())
}

/// Returns the namespace of an object. Every `PulseIngest` that the API server returns has one.
pub fn namespace(cr: &PulseIngest) -> String {
    cr.namespace().expect("PulseIngest is namespaced")
}

/// Returns the first 10 hex digits of a SHA-256 over `parts`. The length of each part is hashed too, so that parts
/// cannot be confused.
pub fn short_hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::pulse_ingest;

    #[test]
    fn ownership_distinguishes_owner_predecessor_and_others() {
        let cr = pulse_ingest(serde_json::json!({}));
        let own = metadata(&cr, child(&cr, "api"), "api");
        let mut predecessor = own.clone();
        predecessor.owner_references.as_mut().expect("an owner")[0].uid = "another".into();
        let mut foreign = predecessor.clone();
        foreign.owner_references.as_mut().expect("an owner")[0].name = "another".into();
        let ownership = |metadata: &ObjectMeta| (is_owned(metadata, &cr), is_owned_by_predecessor(metadata, &cr));
        assert_eq!([&own, &predecessor, &foreign].map(ownership), [(true, false), (false, true), (false, false)]);
    }
}
