//! Creates, changes and deletes one object.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use pulse_crd::PendingChange;
use pulse_crd::names::{self, APPLIED, MANAGER};
use pulse_reconcile::compare::{contains, hash, project};
use pulse_reconcile::done::ApplyReport;
use pulse_reconcile::error::ReconcileError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::applier::Applier;
use crate::client::api_message;

/// A resource version that no object has, because the API server's storage was empty at it. With it, server-side apply
/// creates an object and never changes one.
const BEFORE_ALL_OBJECTS: &str = "1";

/// A kind of object that the operator writes.
pub(super) trait Kind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Kind for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize
{
}

/// The JSON text of a desired object, and its hash. Both are needed in each reconcile, and computed once.
pub(super) struct Rendered {
    pub(super) text: Value,
    pub(super) hash: String,
}

impl Rendered {
    pub(super) fn of<K: Serialize>(desired: &K) -> Self {
        let text = json_of(desired);
        Self { hash: hash(&text), text }
    }
}

impl Applier<'_> {
    /// Creates an object or changes it, unless its back-off is active.
    pub(super) async fn converge<K: Kind>(
        &self,
        mut desired: K,
        live: Option<&K>,
        report: &mut ApplyReport,
    ) -> Result<(), ReconcileError> {
        let rendered = Rendered::of(&desired);
        let key = key::<K>(&desired.name_any());
        let attempt = async {
            match live {
                Some(live) => self.update(desired, &rendered, live, report).await.map(drop),
                None => {
                    // The created object is complete, so its hash marks it as applied.
                    desired.annotations_mut().insert(APPLIED.into(), rendered.hash.clone());
                    self.create(&desired, report).await.map(drop)
                }
            }
        };
        self.guarded(key, &rendered.hash, attempt).await
    }

    /// Creates an object and returns the object that exists now. An object that exists already is not an error if it
    /// has the right owner, because the cache may be stale.
    pub(super) async fn create<K: Kind>(
        &self,
        desired: &K,
        report: &mut ApplyReport,
    ) -> Result<Option<K>, ReconcileError> {
        let name = desired.name_any();
        report.changes.push(pending_change::<K>(&name, "create", false));
        if self.dry_run {
            return Ok(None);
        }
        let mut patch = typed_json_of(desired);
        patch["metadata"]["resourceVersion"] = json!(BEFORE_ALL_OBJECTS);
        let api = self.api::<K>();
        match api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(&patch)).await {
            Ok(created) => Ok(Some(created)),
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                let live = api.get_opt(&name).await.map_err(api_error::<K>("get", &name))?;
                match live {
                    Some(live) if names::is_owned(live.meta(), self.cr) => Ok(Some(live)),
                    Some(live) if names::is_owned_by_predecessor(live.meta(), self.cr) => {
                        Err(ReconcileError::PredecessorTerminating { object: key::<K>(&name) })
                    }
                    Some(_) => Err(ReconcileError::NameConflict { object: key::<K>(&name) }),
                    None => Ok(None),
                }
            }
            Err(error) => Err(api_error::<K>("create", &name)(error)),
        }
    }

    /// Applies an object unless it is up to date. Returns the new object if it was applied.
    pub(super) async fn update<K: Kind>(
        &self,
        mut desired: K,
        Rendered { text, hash }: &Rendered,
        live: &K,
        report: &mut ApplyReport,
    ) -> Result<Option<K>, ReconcileError> {
        let name = desired.name_any();
        let version = live.resource_version().unwrap_or_default();
        let key = key::<K>(&name);
        let is_applied = live.annotations().get(APPLIED) == Some(hash);
        if is_applied && self.memory().cache.is_current(&key, hash, &version) {
            return Ok(None);
        }
        let live_text = json_of(live);
        let found = project(&live_text, text);
        if is_applied && (contains(&live_text, text) || self.memory().cache.is_known_result(&key, hash, &found)) {
            self.memory().cache.remember(key, hash, version, &found);
            return Ok(None);
        }
        let restarts = !contains(&live_text["spec"]["template"], &text["spec"]["template"]);
        if !is_applied && restarts && !self.dry_run && !(self.may_roll)() {
            report.queued.push(key);
            return Ok(None);
        }
        let contested = if is_applied { self.memory().fights.held(&key, self.now) } else { None };
        if let Some(contested) = contested {
            return Err(contested);
        }
        report.changes.push(pending_change::<K>(&name, "update", restarts));
        if self.dry_run {
            return Ok(None);
        }
        desired.meta_mut().uid = live.uid();
        desired.annotations_mut().insert(APPLIED.into(), hash.clone());
        let (applied, rivals) = self.apply_over(&desired, is_applied).await?;
        let now = applied.resource_version().unwrap_or_default();
        // Without a new version, the API server only stores a value in another form.
        if is_applied && now != version {
            report.drifted.push(if rivals.is_empty() { key.clone() } else { format!("{key} ({rivals})") });
            self.memory().fights.changed_back(&key, rivals, self.intervals, self.now);
        }
        self.memory().cache.remember(key, hash, now, &project(&json_of(&applied), text));
        Ok(Some(applied))
    }

    /// Deletes an object, unless it was replaced or, with `version`, has changed.
    pub(super) async fn delete<K: Kind>(
        &self,
        live: &K,
        version: Option<String>,
        params: DeleteParams,
        report: &mut ApplyReport,
    ) -> Result<(), ReconcileError> {
        let name = live.name_any();
        report.changes.push(pending_change::<K>(&name, "delete", false));
        let attempt = async {
            if self.dry_run {
                return Ok(());
            }
            let preconditions = Some(Preconditions { uid: live.uid(), resource_version: version });
            match self.api::<K>().delete(&name, &DeleteParams { preconditions, ..params }).await {
                Ok(_) => Ok(()),
                // The change triggers the next reconcile.
                Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
                Err(error) => Err(api_error::<K>("delete", &name)(error)),
            }
        };
        self.guarded(key::<K>(&name), "", attempt).await
    }

    pub(super) fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &names::namespace(self.cr))
    }
}

/// Identifies an object in the memory and in messages.
pub(super) fn key<K: Kind>(name: &str) -> String {
    format!("{} {name}", K::kind(&()))
}

pub(super) fn json_of<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Returns the object with its type, as server-side apply requires.
pub(super) fn typed_json_of<K: Kind>(object: &K) -> Value {
    let mut text = json_of(object);
    text["apiVersion"] = json!(K::api_version(&()));
    text["kind"] = json!(K::kind(&()));
    text
}

pub(super) fn api_error<K: Kind>(verb: &'static str, name: &str) -> impl FnOnce(kube::Error) -> ReconcileError {
    let object = key::<K>(name);
    move |error| ReconcileError::Refused { verb, object, message: api_message(&error) }
}

fn pending_change<K: Kind>(name: &str, action: &str, restarts: bool) -> PendingChange {
    PendingChange { object: key::<K>(name), action: action.to_owned(), restarts }
}
