//! Making it so. I/O: every call needs a client, and each names the identity that it saw.
//!
//! Objects are created by POST, so that nothing of somebody else's is adopted, and changed by server-side apply with the
//! UID that was seen, so that nothing deleted comes back. The main apply never names `replicas`: a field that its owner
//! drops is reset, and the number of pods is nobody's but the scaler's.

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

use crate::compare::{AppliedCache, contains, hash, project};
use crate::crd::{PendingChange, PulseIngest};
use crate::desired::ChildObjects;
use crate::names::{self, APPLIED, MANAGER, REVISION, Role, SCALER};
use crate::observe::Observed;

/// Why an object could not be made so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// An object of that name is not ours.
    #[error("{kind} {name} exists and belongs to somebody else: rename or delete it")]
    Conflict {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// An object of that name is of an earlier ingest of our name.
    #[error("{kind} {name} of an earlier object of this name is still being removed")]
    Leftover {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The API server refused or is away.
    #[error("{verb} {kind} {name}: {}", api_message(.source))]
    Api {
        /// What we tried.
        verb: &'static str,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Its answer.
        source: Box<kube::Error>,
    },
}

/// What a round of applying did.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// What was created, changed or deleted, or would be if `dry_run`.
    pub changes: Vec<PendingChange>,
    /// Objects whose fields somebody else had changed.
    pub drifted: Vec<String>,
    /// Deployments as they are now: what was observed before says nothing of a rollout that just began.
    pub deployments: Vec<(Role, Deployment)>,
}

/// Applies objects of one ingest.
pub(crate) struct Applier<'a> {
    /// Needed for every write.
    pub client: &'a Client,
    /// Whose objects.
    pub cr: &'a PulseIngest,
    /// What was applied before.
    pub memory: &'a AppliedCache,
    /// Only say what would be done.
    pub dry_run: bool,
}

impl Applier<'_> {
    /// Applies everything, in order; `initial` has the number of pods of Deployments that are created. What goes wrong with
    /// one object keeps no other from being looked after; only a new revision waits.
    ///
    /// # Errors
    /// The first thing that failed. What was done stays, and is in `done`; the next round goes on.
    pub(crate) async fn apply(
        &self,
        resources: ChildObjects,
        observed: &Observed,
        initial: impl Fn(Role) -> i32,
        done: &mut Applied,
    ) -> Result<(), ApplyError> {
        let ChildObjects { service_accounts, migration, services, disruption_budgets, deployments } = resources;
        let mut before_pods = Ok(());
        for object in service_accounts {
            let live = observed.service_accounts.get(&object.name_any()).map(AsRef::as_ref);
            before_pods = before_pods.and(self.object(object, live, done).await);
        }
        let mut others = match migration {
            Some(job) => self.create(&job, done).await.map(drop),
            None => Ok(()),
        };
        for object in services {
            let live = observed.services.get(&object.name_any()).map(AsRef::as_ref);
            others = others.and(self.object(object, live, done).await);
        }
        let wanted: Vec<String> = disruption_budgets.iter().map(ResourceExt::name_any).collect();
        for object in disruption_budgets {
            let live = observed.disruption_budgets.get(&object.name_any()).map(AsRef::as_ref);
            others = others.and(self.object(object, live, done).await);
        }
        for (role, deployment) in deployments {
            let live = observed.deployments.get(&role).map(AsRef::as_ref);
            // Nothing new is started before what has to be there first.
            if before_pods.is_ok() || live.is_some_and(|live| same_revision(live, &deployment)) {
                before_pods = before_pods.and(self.deployment(role, deployment, live, initial(role), done).await);
            }
        }
        // Last: what replaces it is there.
        for (name, live) in &observed.disruption_budgets {
            if !wanted.contains(name) && live.metadata.deletion_timestamp.is_none() {
                others = others.and(self.delete::<PodDisruptionBudget>(live, done).await);
            }
        }
        before_pods.and(others)
    }

    async fn deployment(
        &self,
        role: Role,
        wanted: Deployment,
        live: Option<&Deployment>,
        initial: i32,
        done: &mut Applied,
    ) -> Result<(), ApplyError> {
        let changed = match live {
            Some(live) => self.change(wanted, live, done).await?,
            None => match self.create(&skeleton(&wanted, initial), done).await? {
                Some(live) => self.change(wanted, &live, done).await?,
                None => None,
            },
        };
        done.deployments.extend(changed.map(|deployment| (role, deployment)));
        Ok(())
    }

    async fn object<K: Kind>(&self, mut wanted: K, live: Option<&K>, done: &mut Applied) -> Result<(), ApplyError> {
        match live {
            Some(live) => self.change(wanted, live, done).await.map(drop),
            None => {
                // It is complete: nothing is left to apply.
                let hash = hash(&serde_json::to_value(&wanted).unwrap_or_default());
                wanted.annotations_mut().insert(APPLIED.into(), hash);
                self.create(&wanted, done).await.map(drop)
            }
        }
    }

    /// POST. That it exists already is no error if it is ours: a cache may be late. Returns what is there now.
    async fn create<K: Kind>(&self, wanted: &K, done: &mut Applied) -> Result<Option<K>, ApplyError> {
        let name = wanted.name_any();
        done.changes.push(change::<K>(&name, "create", false));
        if self.dry_run {
            return Ok(None);
        }
        let api = self.api::<K>();
        let params = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match api.create(&params, wanted).await {
            Ok(created) => Ok(Some(created)),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let live = api.get_opt(&name).await.map_err(failed::<K>("get", &name))?;
                match live {
                    Some(live) if names::is_owned(live.meta(), self.cr) => Ok(Some(live)),
                    Some(live) if names::is_of_former(live.meta(), self.cr) => {
                        Err(ApplyError::Leftover { kind: K::kind(&()).into_owned(), name })
                    }
                    Some(_) => Err(ApplyError::Conflict { kind: K::kind(&()).into_owned(), name }),
                    None => Ok(None),
                }
            }
            Err(error) => Err(failed::<K>("create", &name)(error)),
        }
    }

    /// Server-side apply, unless what is there is already as wanted. Returns what is there now, if it was applied.
    async fn change<K: Kind>(&self, mut wanted: K, live: &K, done: &mut Applied) -> Result<Option<K>, ApplyError> {
        let name = wanted.name_any();
        let text = serde_json::to_value(&wanted).unwrap_or_default();
        let hash = hash(&text);
        let version = live.resource_version().unwrap_or_default();
        let key = format!("{} {name}", K::kind(&()));
        let same = live.annotations().get(APPLIED) == Some(&hash);
        if same && self.memory.is(&key, &hash, &version) {
            return Ok(None);
        }
        let live_text = serde_json::to_value(live).unwrap_or_default();
        let found = project(&live_text, &text);
        if same && (contains(&live_text, &text) || self.memory.knows(&key, &hash, &found)) {
            self.memory.remember(key, &hash, version, &found);
            return Ok(None);
        }
        let restarts = !contains(&live_text["spec"]["template"], &text["spec"]["template"]);
        done.changes.push(change::<K>(&name, "update", restarts));
        if self.dry_run {
            return Ok(None);
        }
        wanted.meta_mut().uid = live.uid();
        wanted.annotations_mut().insert(APPLIED.into(), hash.clone());
        let mut patch = serde_json::to_value(&wanted).unwrap_or_default();
        patch["apiVersion"] = json!(K::api_version(&()));
        patch["kind"] = json!(K::kind(&()));
        let params = PatchParams::apply(MANAGER).force();
        let applied =
            self.api::<K>().patch(&name, &params, &Patch::Apply(&patch)).await.map_err(failed::<K>("apply", &name))?;
        let now = applied.resource_version().unwrap_or_default();
        // Otherwise it was only written in another way, before we were started.
        if same && now != version {
            done.drifted.push(format!("{} {name}", K::kind(&())));
        }
        let result = project(&serde_json::to_value(&applied).unwrap_or_default(), &text);
        self.memory.remember(key, &hash, now, &result);
        Ok(Some(applied))
    }

    async fn delete<K: Kind>(&self, live: &K, done: &mut Applied) -> Result<(), ApplyError> {
        let name = live.name_any();
        done.changes.push(change::<K>(&name, "delete", false));
        if self.dry_run {
            return Ok(());
        }
        let preconditions = Preconditions { uid: live.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        match self.api::<K>().delete(&name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(failed::<K>("delete", &name)(error)),
        }
    }

    /// Sets how long ended Jobs are kept.
    ///
    /// # Errors
    /// [`ApplyError::Api`].
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
                Err(error) => return Err(failed::<Job>("patch", name)(error)),
            }
        }
        Ok(())
    }

    /// The Deployment as the API server has it now: a cache may be late, and a number of pods must not rest on that.
    ///
    /// # Errors
    /// [`ApplyError::Api`].
    pub(crate) async fn live(&self, name: &str) -> Result<Option<Deployment>, ApplyError> {
        let live = self.api::<Deployment>().get_opt(name).await.map_err(failed::<Deployment>("get", name))?;
        Ok(live.filter(|live| names::is_owned(live.meta(), self.cr)))
    }

    /// Sets the number of pods of `live`, and returns whether it did: not if it was changed since it was read. That is no
    /// error, because its controller changes it all the time; the change itself calls the next round.
    ///
    /// # Errors
    /// [`ApplyError::Api`].
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
            Err(error) => Err(failed::<Deployment>("scale", &name)(error)),
        }
    }

    /// Says how dear a pod is to its ReplicaSet; a pod that is gone has no need of it.
    ///
    /// # Errors
    /// [`ApplyError::Api`].
    pub(crate) async fn set_deletion_cost(&self, pod: &str, cost: Option<i32>) -> Result<(), ApplyError> {
        let cost = cost.map(|cost| cost.to_string());
        let patch = json!({ "metadata": { "annotations": { (names::DELETION_COST): cost } } });
        let params = PatchParams { field_manager: Some(SCALER.into()), ..PatchParams::default() };
        match self.api::<Pod>().patch(pod, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(failed::<Pod>("patch", pod)(error)),
        }
    }

    fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.cr.namespace().unwrap_or_default())
    }
}

/// A kind of object that we write.
trait Kind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Kind for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize
{
}

fn same_revision(live: &Deployment, wanted: &Deployment) -> bool {
    live.annotations().get(REVISION) == wanted.annotations().get(REVISION)
}

/// What the API server says, without the whole answer.
pub(crate) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

fn failed<K: Kind>(verb: &'static str, name: &str) -> impl FnOnce(kube::Error) -> ApplyError {
    let name = name.to_owned();
    move |source| ApplyError::Api { verb, kind: K::kind(&()).into_owned(), name, source: Box::new(source) }
}

fn change<K: Kind>(name: &str, action: &str, restarts: bool) -> PendingChange {
    PendingChange { object: format!("{} {name}", K::kind(&())), action: action.to_owned(), restarts }
}

/// The least that can be created, paused: only fields that we never drop, because whoever creates a field by POST owns
/// it beside whoever applies it later. The number of pods is given here and by the scaler, nowhere else.
fn skeleton(wanted: &Deployment, replicas: i32) -> Deployment {
    let mut skeleton = wanted.clone();
    skeleton.metadata.annotations = None;
    if let Some(DeploymentSpec { template, replicas: number, paused, strategy, .. }) = &mut skeleton.spec {
        *number = Some(replicas);
        *paused = Some(true);
        // Its kind may never change to one that the defaults of another forbid.
        *strategy = strategy.take().map(|strategy| DeploymentStrategy { rolling_update: None, ..strategy });
        let selected = wanted.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
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
