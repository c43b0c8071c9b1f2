//! Previews a reconcile: the operator's own plan, computed from what the user may read. Writes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Resource, ResourceExt};
use pulse_crd::names::{self, APPLIED, MANAGER};
use pulse_crd::{AutoscalingMode, MigrationPolicy, PulseIngest};
use pulse_reconcile::compare::hash;
use pulse_reconcile::condition::{ConditionType, find};
use pulse_reconcile::decide::{Decision, decide};
use pulse_reconcile::desired::{ChildObjects, DEV_RELOAD, JobKind};
use pulse_reconcile::intervals::Intervals;
use pulse_reconcile::memory::Memory;
use pulse_reconcile::now::Now;
use pulse_reconcile::observed::{self, ByName, Labelled, Observed};
use pulse_reconcile::plan::ReconcilePlan;
use pulse_reconcile::replicas::ReplicaChange;
use pulse_reconcile::secret_uses;
use pulse_reconcile::secrets::{self, DIGEST_SECRET, DigestKey, SecretRead};
use pulse_reconcile::seen::{Reads, Seen, Settings};
use pulse_reconcile::workers::ScalingPlan;
use pulse_scaling::ScalingReason;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::connection::{Plugin, PluginError};
use crate::diff::{self, Field};
use crate::read::{Section, created_for};

/// The changes that a reconcile would make now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Name of the object.
    pub name: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Whether the object is paused, so that no change is made until it is resumed.
    pub paused: bool,
    /// Image of the active revision.
    pub active: Option<String>,
    /// Image of the desired revision.
    pub desired: String,
    /// State of the schema, or the next step of its migration, in a sentence.
    pub migration: String,
    /// Changed objects, in the order of the changes.
    pub changes: Vec<Change>,
    /// Change of the number of workers; `None` if their Deployment does not exist or cannot be read.
    pub workers: Option<Scale>,
    /// What the reconcile waits for, a sentence each.
    pub waiting: Vec<String>,
    /// What could not be read, and therefore may change as well.
    pub unavailable: Vec<String>,
}

/// The change of one object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// `create`, `update`, `scale` or `delete`.
    pub action: &'static str,
    /// Kind and name of the object.
    pub object: String,
    /// Changed fields, for `update` and `scale`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
    /// Whether the pods of the object restart.
    pub restarts: bool,
}

/// A change of the number of workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scale {
    /// Current number.
    pub from: u32,
    /// Number after the reconcile.
    pub to: u32,
    /// Reason of the decision.
    pub message: String,
}

/// What was read of the cluster.
#[derive(Default)]
pub(crate) struct ClusterRead {
    labelled: Labelled,
    secrets: BTreeMap<pulse_crd::SecretKey, SecretRead>,
    key: Option<DigestKey>,
    /// What could not be read, a sentence each.
    unavailable: Vec<String>,
    /// Kinds that could not be read.
    unknown: Vec<String>,
}

impl Plugin {
    /// Previews a reconcile. `operator_namespace` is the operator's namespace; `None` for that of the object.
    ///
    /// # Errors
    /// [`PluginError`] if the object cannot be read. Everything else that cannot be read is listed in `unavailable`.
    pub async fn preview(&self, name: &str, operator_namespace: Option<&str>) -> Result<Preview, PluginError> {
        let cr = self.object(name).await?;
        let mut cluster = ClusterRead::default();
        let which = created_for(name);
        let (deployments, jobs, pods, services, service_accounts, disruption_budgets) = tokio::join!(
            self.list(&which),
            self.list(&which),
            self.list(&which),
            self.list(&which),
            self.list(&which),
            self.list(&which),
        );
        cluster.labelled = Labelled {
            deployments: cluster.take(deployments),
            jobs: cluster.take(jobs),
            pods: cluster.take(pods),
            services: cluster.take(services),
            service_accounts: cluster.take(service_accounts),
            disruption_budgets: cluster.take(disruption_budgets),
        };
        self.secrets(&cr, operator_namespace, &mut cluster).await;
        Ok(preview(&cr, cluster, Timestamp::now()))
    }

    async fn secrets(&self, cr: &PulseIngest, operator_namespace: Option<&str>, cluster: &mut ClusterRead) {
        let secrets_api = self.all::<Secret>();
        let referenced = secret_uses::referenced(cr);
        let first = referenced.first().map(|key| key.name.clone()).unwrap_or_default();
        if let Err(error) = secrets_api.get_opt(&first).await {
            let error = self.api_error::<Secret>("get", &error).to_string();
            let unreadable = referenced.into_iter().map(|key| (key, SecretRead::Unreadable(error.clone())));
            cluster.secrets = unreadable.collect();
            cluster.unavailable.push(format!("{error}: pods restart if a Secret has changed"));
            return;
        }
        let mut read = BTreeMap::new();
        for name in secret_uses::names(cr) {
            let result = secrets_api.get_opt(&name).await;
            read.insert(name, result.map_err(|error| self.api_error::<Secret>("get", &error).to_string()));
        }
        cluster.secrets = secrets::reads(cr, &read);
        let namespace = operator_namespace.unwrap_or(&self.namespace);
        let keys: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        cluster.key = keys.get_opt(DIGEST_SECRET).await.ok().flatten().and_then(DigestKey::of);
        if cluster.key.is_none() {
            cluster.unavailable.push(format!(
                "Secret {DIGEST_SECRET} is not readable in namespace {namespace}: pods restart if a Secret has \
                 changed; set --operator-namespace to the operator's namespace"
            ));
        }
    }
}

impl ClusterRead {
    fn take<K>(&mut self, section: Section<Vec<K>>) -> ByName<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned,
    {
        match section {
            Section::Read(found) => found.into_iter().map(|one| (one.name_any(), Arc::new(one))).collect(),
            Section::Unavailable { error } => {
                self.unavailable.push(error);
                self.unknown.push(K::kind(&()).into_owned());
                ByName::new()
            }
        }
    }

    fn knows(&self, kind: &str) -> bool {
        !self.unknown.iter().any(|unknown| unknown == kind)
    }
}

/// The operator's decision, as far as it can be made from what was read.
pub(crate) fn preview(cr: &PulseIngest, mut cluster: ClusterRead, now: Timestamp) -> Preview {
    let mut observed = observed::children(std::mem::take(&mut cluster.labelled), cr);
    let flags = OperatorFlags::observed(cr, &observed);
    if !flags.pull_secrets.is_empty() {
        let names = flags.pull_secrets.join(", ");
        cluster.unavailable.push(format!(
            "the operator's flags: pull secrets that only the pods have are assumed to come from them ({names})"
        ));
    }
    observed.secrets = std::mem::take(&mut cluster.secrets);
    let (digest_key, is_complete) = match cluster.key.take() {
        Some(key) => (key, cluster.knows("Job") && cluster.knows("Pod")),
        None => (DigestKey::new(Vec::new()), false),
    };
    if !is_complete {
        // Without the digest key, Secrets cannot be compared with those of the pods. Without Jobs and pods, the state
        // of the migration is unknown.
        for reading in observed.secrets.values_mut().filter(|reading| reading.found().is_some()) {
            *reading = SecretRead::Unreadable("not compared".into());
        }
    }
    let settings = Settings { digest_key, dev_reload: flags.dev_reload, intervals: Intervals::default() };
    let seen = Seen {
        cr: with_pull_secrets(cr, &flags.pull_secrets),
        observed,
        // Only the operator reads the queue.
        sample: None,
        redis: None,
        served: Arc::default(),
        settings: Arc::new(settings),
        reads: Reads::default(),
    };
    let decision = decide(&seen, &Memory::default(), Now { clock: now, instant: Instant::now() });
    let cr = &seen.cr;
    let mut waiting = decision.plan.missing.clone();
    let (migration, job) = migration(cr, &decision.plan, is_complete);
    if let Some(stalled) = find(&cr.status.clone().unwrap_or_default().conditions, ConditionType::Stalled) {
        waiting.push(format!("{}: {}", stalled.reason, stalled.message));
    }
    Preview {
        name: cr.name_any(),
        namespace: names::namespace(cr),
        paused: cr.spec.paused,
        active: active_image(cr),
        desired: decision.plan.desired.image.clone(),
        migration,
        changes: changes(&cluster, &seen.observed, &decision, job),
        workers: decision.workers.map(|workers| scale(cr, workers)),
        waiting,
        unavailable: cluster.unavailable,
    }
}

/// What the operator's flags add to every pod, derived from the pod templates: the flags cannot be read.
struct OperatorFlags {
    pull_secrets: Vec<String>,
    dev_reload: Option<PathBuf>,
}

impl OperatorFlags {
    fn observed(cr: &PulseIngest, observed: &Observed) -> Self {
        let own: Vec<&String> = cr.spec.image.pull_secrets.iter().map(|secret| &secret.name).collect();
        let pod = observed.deployments.values().find_map(|found| found.spec.as_ref()?.template.spec.as_ref());
        let pull_secrets = pod.iter().flat_map(|pod| pod.image_pull_secrets.iter().flatten());
        let containers = pod.iter().flat_map(|pod| &pod.containers);
        let mut env = containers.flat_map(|container| container.env.iter().flatten());
        Self {
            pull_secrets: pull_secrets.map(|secret| secret.name.clone()).filter(|name| !own.contains(&name)).collect(),
            dev_reload: env
                .find(|variable| variable.name == DEV_RELOAD)
                .and_then(|found| Some(found.value.clone()?.into())),
        }
    }
}

fn with_pull_secrets(cr: &PulseIngest, names: &[String]) -> PulseIngest {
    let mut cr = cr.clone();
    cr.spec.image.add_pull_secrets(names);
    cr
}

fn active_image(cr: &PulseIngest) -> Option<String> {
    Some(cr.status.as_ref()?.active_revision.as_ref()?.image.clone())
}

/// The state of the schema, and the name of a Job that would be created although its exact inputs are unknown.
fn migration(cr: &PulseIngest, plan: &ReconcilePlan, is_complete: bool) -> (String, Option<String>) {
    let Some(waiting) = &plan.migration.waiting else { return ("up to date".into(), None) };
    if let Some(request) = &plan.migration.create {
        return (format!("Job {} runs `pulse {}`", request.name, request.args.join(" ")), None);
    }
    if is_complete || !plan.missing.is_empty() {
        return (format!("{}: {}", waiting.reason, waiting.message), None);
    }
    // The operator's condition is valid for this spec. For another spec, a Job checks the schema first.
    let status = cr.status.clone().unwrap_or_default();
    let condition = find(&status.conditions, ConditionType::Migrated).filter(|_| {
        cr.metadata.generation == Some(status.observed_generation)
            && status.desired_revision.as_ref() == Some(&plan.desired)
    });
    match condition {
        Some(condition) => (format!("{}: {}", condition.reason, condition.message), None),
        None => {
            let kind =
                if cr.spec.migrations.policy == MigrationPolicy::Auto { JobKind::Migrate } else { JobKind::Plan };
            let name = format!("{}-{}-…", cr.name_any(), kind.verb());
            (format!("a Job checks the schema for {} first", plan.desired.image), Some(name))
        }
    }
}

fn changes(cluster: &ClusterRead, observed: &Observed, decision: &Decision, job: Option<String>) -> Vec<Change> {
    let ChildObjects { service_accounts, migration, services, disruption_budgets, deployments, invalid } =
        &decision.objects;
    let migrations = &decision.plan.migration;
    let mut changes: Vec<Change> = invalid
        .iter()
        .map(|it| change_without_fields("refuse", format!("{} {}: {}", it.kind, it.name, it.message)))
        .collect();
    changes.extend(service_accounts.iter().filter_map(|desired| change(cluster, desired, &observed.service_accounts)));
    let job = migration.as_ref().map(|job| job.name_any()).or(job);
    changes.extend(job.map(|name| change_without_fields("create", format!("Job {name}"))));
    for (name, _) in &migrations.expire {
        let job = observed.jobs.iter().find(|job| job.name_any() == *name);
        let kept = job.and_then(|job| job.spec.as_ref()?.ttl_seconds_after_finished);
        if job.is_some() && kept.is_none() {
            changes.push(change_without_fields("update", format!("Job {name}")));
        }
    }
    changes.extend(migrations.delete.iter().map(|name| change_without_fields("delete", format!("Job {name}"))));
    changes.extend(services.iter().filter_map(|desired| change(cluster, desired, &observed.services)));
    changes
        .extend(disruption_budgets.iter().filter_map(|desired| change(cluster, desired, &observed.disruption_budgets)));
    let live: ByName<Deployment> =
        observed.deployments.values().map(|found| (found.name_any(), found.clone())).collect();
    changes.extend(deployments.iter().filter_map(|(_, desired)| change(cluster, desired, &live)));
    for ReplicaChange { deployment, from, to, .. } in &decision.replicas {
        let field = Field { path: "spec.replicas".into(), from: from.map(|from| json!(from)), to: Some(json!(to)) };
        let object = format!("Deployment {deployment}");
        changes.push(Change { fields: vec![field], ..change_without_fields("scale", object) });
    }
    changes.extend(decision.leftovers.names().map(|object| change_without_fields("delete", object)));
    changes
}

fn change_without_fields(action: &'static str, object: String) -> Change {
    Change { action, object, fields: Vec::new(), restarts: false }
}

/// The change of one desired object; `None` if it is up to date, or its kind could not be read.
fn change<K>(cluster: &ClusterRead, desired: &K, there: &ByName<K>) -> Option<Change>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let kind = K::kind(&()).into_owned();
    if !cluster.knows(&kind) {
        return None;
    }
    let name = desired.name_any();
    let object = format!("{kind} {name}");
    let Some(live) = there.get(&name) else { return Some(change_without_fields("create", object)) };
    let mut text = serde_json::to_value(desired).unwrap_or_default();
    let applied = hash(&text);
    let live_text = serde_json::to_value(live.as_ref()).unwrap_or_default();
    let mut fields = diff::changed(&live_text, &text);
    let same = live.annotations().get(APPLIED) == Some(&applied);
    if !same {
        text["metadata"]["annotations"][APPLIED] = Value::from(applied);
        fields.extend(diff::dropped(&live_text, &text, MANAGER));
    }
    if same && fields.is_empty() {
        return None;
    }
    let restarts = fields.iter().any(|field| field.path.starts_with("spec.template."));
    Some(Change { fields, restarts, ..change_without_fields("update", object) })
}

/// The change of the number of workers. A number that follows the queue is shown as unchanged.
fn scale(cr: &PulseIngest, plan: ScalingPlan) -> Scale {
    let ScalingPlan { from, decision, .. } = plan;
    let follows = cr.spec.workers.autoscaling.as_ref().is_some_and(|scaling| scaling.mode == AutoscalingMode::Internal);
    let last = cr.status.as_ref().and_then(|status| status.autoscaling.as_ref()?.last_decision.clone());
    let message = if follows && decision.reason == ScalingReason::Unknown {
        let last = last.map(|last| format!("; its last decision: {} → {}: {}", last.from, last.to, last.message));
        format!("follows the queue, which only the operator reads{}", last.unwrap_or_default())
    } else {
        decision.message
    };
    Scale { from, to: decision.replicas, message }
}
