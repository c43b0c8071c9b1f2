//! Applies the desired objects. I/O: every write carries the identity of the object that was observed.
//!
//! Objects are created by POST, so the operator never adopts an object of another owner. They are changed by
//! server-side apply with the observed UID, so a deleted object is not created again. The main apply never contains
//! `replicas`: server-side apply resets a field that its owner drops, and only the scaler owns the number of pods.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::client::api_message;
use crate::compare::{AppliedCache, contains, hash, project};
use crate::connections::Use;
use crate::crd::{PendingChange, PulseIngest};
use crate::desired::ChildObjects;
use crate::names::{self, APPLIED, MANAGER, REVISION, Role, SCALER};
use crate::observe::Observed;

/// An error that kept an object from being applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// An object of that name exists and has another owner.
    #[error("{kind} {name} exists and has another owner: rename or delete it")]
    Conflict {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
    },
    /// An object of that name belongs to a deleted `PulseIngest` of the same name.
    #[error("{kind} {name} belongs to a deleted PulseIngest of this name: wait until it is garbage-collected")]
    PredecessorTerminating {
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
    },
    /// The API server rejected the request or did not answer.
    #[error("cannot {verb} {kind} {name}: {}", api_message(.source))]
    Api {
        /// Verb of the request.
        verb: &'static str,
        /// Kind of the object.
        kind: String,
        /// Name of the object.
        name: String,
        /// Error of the client.
        source: Box<kube::Error>,
    },
}

/// Result of applying the objects.
#[derive(Debug, Default)]
pub(crate) struct ApplyReport {
    /// Objects that were created, changed or deleted, or would have been with `dry_run`.
    pub changes: Vec<PendingChange>,
    /// Objects that others had changed and that were changed back.
    pub drifted: Vec<String>,
    /// Deployments as the API server returned them. The observed ones do not show a rollout that has just begun.
    pub deployments: Vec<(Role, Deployment)>,
    /// Names of Deployments whose change has to wait.
    pub held: Vec<String>,
}

/// Applies the objects of one instance.
pub(crate) struct Applier<'a> {
    /// Client for every write.
    pub client: &'a Client,
    /// Owner of the objects.
    pub cr: &'a PulseIngest,
    /// Hashes of the objects that were applied before.
    pub memory: &'a AppliedCache,
    /// Records changes in the report without making them.
    pub dry_run: bool,
    /// Use of the budget of connections, which holds changes that have to wait.
    pub used: Option<&'a Use>,
}

impl Applier<'_> {
    /// Applies all objects in order. `initial` returns the number of pods with which a Deployment is created. An error
    /// with one object does not keep the others from being applied; only Deployments of a new revision wait for the
    /// ServiceAccounts and for the Deployments before them.
    ///
    /// # Errors
    /// The first error. What was applied before and after it stays and is in `report`; the next reconcile continues.
    pub(crate) async fn apply(
        &self,
        resources: ChildObjects,
        observed: &Observed,
        initial: impl Fn(Role) -> i32,
        report: &mut ApplyReport,
    ) -> Result<(), ApplyError> {
        let ChildObjects { service_accounts, migration, services, disruption_budgets, deployments } = resources;
        let mut before_pods = Ok(());
        for object in service_accounts {
            let live = observed.service_accounts.get(&object.name_any()).map(AsRef::as_ref);
            before_pods = before_pods.and(self.create_or_update(object, live, report).await);
        }
        let mut others = match migration {
            Some(job) => self.create(&job, report).await.map(drop),
            None => Ok(()),
        };
        for object in services {
            let live = observed.services.get(&object.name_any()).map(AsRef::as_ref);
            others = others.and(self.create_or_update(object, live, report).await);
        }
        let desired: Vec<String> = disruption_budgets.iter().map(ResourceExt::name_any).collect();
        for object in disruption_budgets {
            let live = observed.disruption_budgets.get(&object.name_any()).map(AsRef::as_ref);
            others = others.and(self.create_or_update(object, live, report).await);
        }
        for (role, deployment) in deployments {
            let live = observed.deployments.get(&role).map(AsRef::as_ref);
            // A new revision is not started before the objects that it depends on.
            let is_next = before_pods.is_ok() && report.held.is_empty();
            if is_next || live.is_some_and(|live| same_revision(live, &deployment)) {
                before_pods = before_pods
                    .and(self.create_or_update_deployment(role, deployment, live, initial(role), report).await);
            }
        }
        // Last, when the objects that replace them exist.
        for (name, live) in &observed.disruption_budgets {
            if !desired.contains(name) && live.metadata.deletion_timestamp.is_none() {
                others = others.and(self.delete::<PodDisruptionBudget>(live, report).await);
            }
        }
        before_pods.and(others)
    }

    async fn create_or_update_deployment(
        &self,
        role: Role,
        desired: Deployment,
        live: Option<&Deployment>,
        initial: i32,
        report: &mut ApplyReport,
    ) -> Result<(), ApplyError> {
        let changed = match live {
            Some(live) if self.used.is_some_and(|used| used.holds(role, false)) => {
                let mut planned = ApplyReport::default();
                Applier { dry_run: true, ..*self }.update(desired, live, &mut planned).await?;
                report.held.extend((!planned.changes.is_empty()).then(|| live.name_any()));
                None
            }
            Some(live) => self.update(desired, live, report).await?,
            None => match self.create(&skeleton(&desired, initial), report).await? {
                Some(live) => self.update(desired, &live, report).await?,
                None => None,
            },
        };
        report.deployments.extend(changed.map(|deployment| (role, deployment)));
        Ok(())
    }

    async fn create_or_update<K: Kind>(
        &self,
        mut desired: K,
        live: Option<&K>,
        report: &mut ApplyReport,
    ) -> Result<(), ApplyError> {
        match live {
            Some(live) => self.update(desired, live, report).await.map(drop),
            None => {
                // The created object is complete, so its hash marks it as applied.
                let hash = hash(&serde_json::to_value(&desired).unwrap_or_default());
                desired.annotations_mut().insert(APPLIED.into(), hash);
                self.create(&desired, report).await.map(drop)
            }
        }
    }

    /// Creates an object by POST and returns the object that exists now. An object that exists already is not an error
    /// if it has the right owner, because the cache may be stale.
    async fn create<K: Kind>(&self, desired: &K, report: &mut ApplyReport) -> Result<Option<K>, ApplyError> {
        let name = desired.name_any();
        report.changes.push(pending_change::<K>(&name, "create", false));
        if self.dry_run {
            return Ok(None);
        }
        let api = self.api::<K>();
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match api.create(&params, desired).await {
            Ok(created) => Ok(Some(created)),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let live = api.get_opt(&name).await.map_err(api_error::<K>("get", &name))?;
                match live {
                    Some(live) if names::is_owned(live.meta(), self.cr) => Ok(Some(live)),
                    Some(live) if names::is_owned_by_predecessor(live.meta(), self.cr) => {
                        Err(ApplyError::PredecessorTerminating { kind: K::kind(&()).into_owned(), name })
                    }
                    Some(_) => Err(ApplyError::Conflict { kind: K::kind(&()).into_owned(), name }),
                    None => Ok(None),
                }
            }
            Err(error) => Err(api_error::<K>("create", &name)(error)),
        }
    }

    /// Applies an object unless it is up to date. Returns the new object if it was applied.
    async fn update<K: Kind>(
        &self,
        mut desired: K,
        live: &K,
        report: &mut ApplyReport,
    ) -> Result<Option<K>, ApplyError> {
        let name = desired.name_any();
        let text = serde_json::to_value(&desired).unwrap_or_default();
        let hash = hash(&text);
        let version = live.resource_version().unwrap_or_default();
        let key = format!("{} {name}", K::kind(&()));
        let is_applied = live.annotations().get(APPLIED) == Some(&hash);
        if is_applied && self.memory.is_current(&key, &hash, &version) {
            return Ok(None);
        }
        let live_text = serde_json::to_value(live).unwrap_or_default();
        let found = project(&live_text, &text);
        if is_applied && (contains(&live_text, &text) || self.memory.is_known_result(&key, &hash, &found)) {
            self.memory.remember(key, &hash, version, &found);
            return Ok(None);
        }
        let restarts = !contains(&live_text["spec"]["template"], &text["spec"]["template"]);
        report.changes.push(pending_change::<K>(&name, "update", restarts));
        if self.dry_run {
            return Ok(None);
        }
        desired.meta_mut().uid = live.uid();
        desired.annotations_mut().insert(APPLIED.into(), hash.clone());
        let mut patch = serde_json::to_value(&desired).unwrap_or_default();
        patch["apiVersion"] = json!(K::api_version(&()));
        patch["kind"] = json!(K::kind(&()));
        let params = PatchParams::apply(MANAGER).force();
        let applied = self
            .api::<K>()
            .patch(&name, &params, &Patch::Apply(&patch))
            .await
            .map_err(api_error::<K>("apply", &name))?;
        let now = applied.resource_version().unwrap_or_default();
        // Without a new version, the API server only stores a value in another form.
        if is_applied && now != version {
            report.drifted.push(format!("{} {name}", K::kind(&())));
        }
        let result = project(&serde_json::to_value(&applied).unwrap_or_default(), &text);
        self.memory.remember(key, &hash, now, &result);
        Ok(Some(applied))
    }

    async fn delete<K: Kind>(&self, live: &K, report: &mut ApplyReport) -> Result<(), ApplyError> {
        let name = live.name_any();
        report.changes.push(pending_change::<K>(&name, "delete", false));
        if self.dry_run {
            return Ok(());
        }
        let preconditions = Preconditions { uid: live.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.api::<K>().delete(&name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(api_error::<K>("delete", &name)(error)),
        }
    }

    /// Sets the TTL of ended Jobs that have none.
    ///
    /// # Errors
    /// [`ApplyError::Api`] if a Job cannot be patched.
    pub(crate) async fn expire(&self, jobs: &[(String, i32)], observed: &Observed) -> Result<(), ApplyError> {
        for (name, seconds) in jobs {
            let job = observed.jobs.iter().find(|job| job.name_any() == *name);
            let kept = job.and_then(|job| job.spec.as_ref()?.ttl_seconds_after_finished);
            if self.dry_run || job.is_none() || kept.is_some() {
                continue;
            }
            let patch = json!({ "spec": { "ttlSecondsAfterFinished": seconds } });
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            match self.api::<Job>().patch(name, &params, &Patch::Merge(&patch)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(api_error::<Job>("patch", name)(error)),
            }
        }
        Ok(())
    }

    /// Reads a Deployment from the API server, because the cache may be stale and scaling must not rely on it.
    ///
    /// # Errors
    /// [`ApplyError::Api`] if the Deployment cannot be read.
    pub(crate) async fn live(&self, name: &str) -> Result<Option<Deployment>, ApplyError> {
        let live = self.api::<Deployment>().get_opt(name).await.map_err(api_error::<Deployment>("get", name))?;
        Ok(live.filter(|live| names::is_owned(live.meta(), self.cr)))
    }

    /// Sets the replicas of `live`. Returns false if the Deployment has changed since it was read: its controller
    /// changes it often, and each change triggers the next reconcile.
    ///
    /// # Errors
    /// [`ApplyError::Api`] for any other error.
    pub(crate) async fn scale(&self, live: &Deployment, replicas: i32) -> Result<bool, ApplyError> {
        let name = live.name_any();
        let patch = json!({
            "metadata": { "resourceVersion": live.resource_version() },
            "spec": { "replicas": replicas },
        });
        let params = PatchParams { field_manager: Some(SCALER.into()), ..PatchParams::default() };
        match self.api::<Deployment>().patch_scale(&name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
            Err(error) => Err(api_error::<Deployment>("scale", &name)(error)),
        }
    }

    /// Sets the pod deletion cost, which decides the pod that a ReplicaSet removes first. A missing pod is not an
    /// error.
    ///
    /// # Errors
    /// [`ApplyError::Api`] if the pod cannot be patched.
    pub(crate) async fn set_deletion_cost(&self, pod: &str, cost: Option<i32>) -> Result<(), ApplyError> {
        let cost = cost.map(|cost| cost.to_string());
        let patch = json!({ "metadata": { "annotations": { (names::DELETION_COST): cost } } });
        let params = PatchParams { field_manager: Some(SCALER.into()), ..PatchParams::default() };
        match self.api::<Pod>().patch(pod, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(api_error::<Pod>("patch", pod)(error)),
        }
    }

    fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &names::namespace(self.cr))
    }
}

/// A kind of object that the operator writes.
trait Kind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Kind for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize
{
}

fn same_revision(live: &Deployment, desired: &Deployment) -> bool {
    live.annotations().get(REVISION) == desired.annotations().get(REVISION)
}

fn api_error<K: Kind>(verb: &'static str, name: &str) -> impl FnOnce(kube::Error) -> ApplyError {
    let name = name.to_owned();
    move |source| ApplyError::Api { verb, kind: K::kind(&()).into_owned(), name, source: Box::new(source) }
}

fn pending_change<K: Kind>(name: &str, action: &str, restarts: bool) -> PendingChange {
    PendingChange { object: format!("{} {name}", K::kind(&())), action: action.to_owned(), restarts }
}

/// Returns the minimal Deployment to create, paused. It only has fields that the operator never drops, because the
/// client that creates a field by POST co-owns it with the client that applies it later. Only this function and the
/// scaler set the number of pods.
fn skeleton(desired: &Deployment, replicas: i32) -> Deployment {
    let mut skeleton = desired.clone();
    skeleton.metadata.annotations = None;
    if let Some(DeploymentSpec { template, replicas: number, paused, strategy, .. }) = &mut skeleton.spec {
        *number = Some(replicas);
        *paused = Some(true);
        // The strategy type stays, because the defaults of one type are invalid with another.
        *strategy = strategy.take().map(|strategy| DeploymentStrategy { rolling_update: None, ..strategy });
        let selected = desired.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
        if let Some(metadata) = &mut template.metadata {
            metadata.labels = selected;
            metadata.annotations = None;
        }
        if let Some(pod) = &mut template.spec {
            let containers = pod.containers.iter().map(|container| k8s_openapi::api::core::v1::Container {
                name: container.name.clone(),
                image: container.image.clone(),
                security_context: container.security_context.clone(),
                ..Default::default()
            });
            *pod = k8s_openapi::api::core::v1::PodSpec {
                containers: containers.collect(),
                security_context: pod.security_context.clone(),
                ..Default::default()
            };
        }
    }
    skeleton
}
