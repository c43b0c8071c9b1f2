//! Every name, label and annotation that the operator writes, in one place.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use sha2::{Digest, Sha256};

use crate::crd::PulseIngest;

/// Our name as a field manager, a controller of events and in `managed-by`.
pub const MANAGER: &str = "pulse-operator";
/// The field manager of replicas.
pub const SCALER: &str = "pulse-scaler";
/// On pod templates: a digest of the Secrets' values that the role uses.
pub const SECRETS: &str = "pulseboard.dev/secrets";
/// On children: a digest of what we applied last.
pub const APPLIED: &str = "pulseboard.dev/applied";
/// On Deployments: the revision that they run, as JSON.
pub const REVISION: &str = "pulseboard.dev/revision";
/// Which pods a Deployment ends first, see the ReplicaSet controller.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// Selects all that we made.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=pulse-operator";

/// A part of an ingest that has pods of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the roles of the binary")]
pub enum Role {
    Api,
    Worker,
    Scheduler,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Scheduler, Self::Worker, Self::Api];

    /// Its subcommand, and the value of `app.kubernetes.io/component`.
    pub const fn component(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Worker => "worker",
            Self::Scheduler => "scheduler",
        }
    }
}

/// The component of a migration's pods.
pub const MIGRATION: &str = "migration";

/// `<cr>-<component>`.
pub fn child(cr: &PulseIngest, component: &str) -> String {
    format!("{}-{component}", cr.name_any())
}

/// Exactly the labels that select a component's pods: a selector can never be changed.
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

/// The selector as an object holds it.
pub fn label_selector(instance: &str, component: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(instance, component)), match_expressions: None }
}

/// The selector as a query.
pub fn selector_text(instance: &str, component: &str) -> String {
    let labels: Vec<String> =
        selector(instance, component).iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(",")
}

/// The labels of a component's objects.
pub fn labels(instance: &str, component: &str) -> BTreeMap<String, String> {
    let mut labels = selector(instance, component);
    labels.insert("app.kubernetes.io/managed-by".into(), MANAGER.into());
    labels.insert("app.kubernetes.io/part-of".into(), "pulseboard-ingest".into());
    labels
}

/// The metadata of a child: with its owner, so that the garbage collector removes it, whether we run or not.
pub fn metadata(cr: &PulseIngest, name: String, component: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: cr.namespace(),
        labels: Some(labels(&cr.name_any(), component)),
        owner_references: Some(vec![owner(cr)]),
        ..ObjectMeta::default()
    }
}

fn owner(cr: &PulseIngest) -> OwnerReference {
    // Does not block the owner's deletion: nothing has to wait for anything.
    OwnerReference { block_owner_deletion: None, ..cr.controller_owner_ref(&()).unwrap_or_default() }
}

/// Whether `metadata` names `cr` as its controller.
pub fn is_owned(metadata: &ObjectMeta, cr: &PulseIngest) -> bool {
    let controllers = metadata.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true));
    cr.uid().is_some_and(|uid| controllers.into_iter().any(|owner| owner.uid == uid))
}

/// Whether `metadata` names an object of `cr`'s name that was there before it: the garbage collector is about to remove it.
pub fn is_of_former(metadata: &ObjectMeta, cr: &PulseIngest) -> bool {
    let Some(ours) = cr.controller_owner_ref(&()) else { return false };
    let mut controllers = metadata.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true));
    controllers.any(|owner| (&owner.kind, &owner.name) == (&ours.kind, &ours.name) && owner.uid != ours.uid)
}

/// `<namespace>/<name>`: whose database and Redis keys they are.
pub fn instance_id(cr: &PulseIngest) -> String {
    format!("{}/{}", cr.namespace().unwrap_or_default(), cr.name_any())
}

/// The first 10 hex digits of a SHA-256 over `parts`; no part can pass for two.
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
    fn an_object_is_ours_of_a_former_one_or_of_somebody_else() {
        let cr = pulse_ingest(serde_json::json!({}));
        let ours = metadata(&cr, child(&cr, "api"), "api");
        let mut former = ours.clone();
        former.owner_references.as_mut().expect("an owner")[0].uid = "another".into();
        let mut theirs = former.clone();
        theirs.owner_references.as_mut().expect("an owner")[0].name = "another".into();
        let whose = |metadata: &ObjectMeta| (is_owned(metadata, &cr), is_of_former(metadata, &cr));
        assert_eq!([&ours, &former, &theirs].map(whose), [(true, false), (false, true), (false, false)]);
    }
}
