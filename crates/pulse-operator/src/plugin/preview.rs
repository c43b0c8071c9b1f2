//! What the operator would do if it looked now: its own plan over what the person may read. Nothing is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::diff::{self, Field};
use super::read::{Section, owned};
use super::{Plugin, PluginError};
use crate::compare::hash;
use crate::controller::replica_mismatch;
use crate::crd::{AutoscalingMode, MigrationPolicy, PulseIngest};
use crate::desired::{self, DEV_RELOAD, Inputs, JobKind};
use crate::names::{APPLIED, MANAGER};
use crate::observe::{self, ByName, Labelled, Observed};
use crate::operator::{DIGEST_SECRET, key_of};
use crate::plan::{self, ReconcilePlan};
use crate::scaling::ScalingReason;
use crate::secrets::{DigestKey, SecretRead};
use crate::status::find;
use crate::workers;

/// What would be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// The object.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Nothing is done before it is resumed.
    pub paused: bool,
    /// The image that runs.
    pub running: Option<String>,
    /// The image that should run.
    pub wanted: String,
    /// The schema, in a sentence.
    pub migration: String,
    /// Objects, in the order in which they would change.
    pub changes: Vec<Change>,
    /// How the number of workers would change; none if their Deployment is not known.
    pub workers: Option<Scale>,
    /// What waits for somebody, a sentence each.
    pub waiting: Vec<String>,
    /// What could not be looked at, so that it may change too.
    pub unread: Vec<String>,
}

/// What would happen to an object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// `create`, `update`, `scale` or `delete`.
    pub action: &'static str,
    /// Its kind and name.
    pub object: String,
    /// What of it changes; for `update` and `scale`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
    /// Whether its pods restart.
    pub restarts: bool,
}

/// A number of workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scale {
    /// Now.
    pub from: u32,
    /// Then.
    pub to: u32,
    /// Why.
    pub why: String,
}

/// What was read, and what was not.
#[derive(Default)]
pub(super) struct World {
    labelled: Labelled,
    secrets: std::collections::BTreeMap<crate::crd::SecretKey, SecretRead>,
    key: Option<DigestKey>,
    unread: Vec<String>,
    /// Kinds that were not read.
    unknown: Vec<String>,
}

impl Plugin {
    /// What the operator would do now. `operator_namespace` is where the operator runs, if not in the same namespace.
    ///
    /// # Errors
    /// [`PluginError`] if the object cannot be read; what else cannot be read is told in `unread`.
    pub async fn preview(&self, name: &str, operator_namespace: Option<&str>) -> Result<Preview, PluginError> {
        let cr = self.object(name).await?;
        let mut world = World::default();
        let which = owned(name);
        let (deployments, jobs, pods, services, service_accounts, disruption_budgets) = tokio::join!(
            self.list(&which),
            self.list(&which),
            self.list(&which),
            self.list(&which),
            self.list(&which),
            self.list(&which),
        );
        world.labelled = Labelled {
            deployments: world.take(deployments),
            jobs: world.take(jobs),
            pods: world.take(pods),
            services: world.take(services),
            service_accounts: world.take(service_accounts),
            disruption_budgets: world.take(disruption_budgets),
        };
        self.secrets(&cr, operator_namespace, &mut world).await;
        Ok(preview(&cr, world, Timestamp::now()))
    }

    async fn secrets(&self, cr: &PulseIngest, operator_namespace: Option<&str>, world: &mut World) {
        let secrets = self.all::<Secret>();
        let referenced = observe::referenced(cr);
        let first = referenced.first().map(|key| key.name.clone()).unwrap_or_default();
        if let Err(error) = secrets.get_opt(&first).await {
            let unread = self.told::<Secret>("get", &error).to_string();
            let unreadable = referenced.into_iter().map(|key| (key, SecretRead::Unreadable(unread.clone())));
            world.secrets = unreadable.collect();
            world.unread.push(format!("{unread}: a changed Secret may restart pods"));
            return;
        }
        world.secrets = observe::secrets(&self.client, cr).await;
        let namespace = operator_namespace.unwrap_or(&self.namespace);
        let keys: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        world.key = keys.get_opt(DIGEST_SECRET).await.ok().flatten().and_then(key_of);
        if world.key.is_none() {
            world.unread.push(format!(
                "Secret {DIGEST_SECRET} is not readable in namespace {namespace}: a changed Secret may restart pods; \
                 name the operator's namespace with --operator-namespace"
            ));
        }
    }
}

impl World {
    fn take<K>(&mut self, section: Section<Vec<K>>) -> ByName<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned,
    {
        match section {
            Section::Read(found) => found.into_iter().map(|one| (one.name_any(), Arc::new(one))).collect(),
            Section::Unread { unread } => {
                self.unread.push(unread);
                self.unknown.push(K::kind(&()).into_owned());
                ByName::new()
            }
        }
    }

    fn knows(&self, kind: &str) -> bool {
        !self.unknown.iter().any(|unknown| unknown == kind)
    }
}

/// The operator's plan, as far as it can be known.
pub(super) fn preview(cr: &PulseIngest, mut world: World, now: Timestamp) -> Preview {
    let mut observed = observe::children(std::mem::take(&mut world.labelled), cr);
    let of_operator = OfOperator::seen(cr, &observed);
    let cr = &with_pull_secrets(cr, &of_operator.pull_secrets);
    if !of_operator.pull_secrets.is_empty() {
        let names = of_operator.pull_secrets.join(", ");
        world.unread.push(format!(
            "the operator's own flags: pull secrets that only its pods name are taken for theirs ({names})"
        ));
    }
    observed.secrets = std::mem::take(&mut world.secrets);
    let (key, is_whole) = match world.key.take() {
        Some(key) => (key, world.knows("Job") && world.knows("Pod")),
        None => (DigestKey::new(Vec::new()), false),
    };
    if !is_whole {
        // Without the key, what was read cannot be compared with what pods have; with the status alone, neither can Jobs.
        for reading in observed.secrets.values_mut().filter(|reading| reading.found().is_some()) {
            *reading = SecretRead::Unreadable("not compared".into());
        }
    }
    let mut plan = plan::plan(cr, &observed, &key, now);
    let mut waiting = plan.missing.clone();
    let (migration, job) = migration(cr, &plan, is_whole);
    let request = plan.migration.create.take();
    let inputs = Inputs {
        revision: plan.active.as_ref(),
        secrets: plan.secrets.clone(),
        job: request.as_ref(),
        dev_reload: of_operator.dev_reload.as_deref(),
    };
    let changes = changes(cr, &world, &observed, desired::resources(cr, &inputs), &plan, job);
    if let Some(stalled) = find(&cr.status.clone().unwrap_or_default().conditions, "Stalled") {
        waiting.push(format!("{}: {}", stalled.reason, stalled.message));
    }
    Preview {
        name: cr.name_any(),
        namespace: cr.namespace().unwrap_or_default(),
        paused: cr.spec.paused,
        running: running(cr),
        wanted: plan.wanted.image.clone(),
        migration,
        changes,
        workers: scale(cr, &observed, plan.migration.waiting.is_some(), now),
        waiting,
        unread: world.unread,
    }
}

/// What the operator's own flags add to every pod: told from the pods' template, because nobody else could.
struct OfOperator {
    pull_secrets: Vec<String>,
    dev_reload: Option<PathBuf>,
}

impl OfOperator {
    fn seen(cr: &PulseIngest, observed: &Observed) -> Self {
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

fn running(cr: &PulseIngest) -> Option<String> {
    Some(cr.status.as_ref()?.active_revision.as_ref()?.image.clone())
}

/// What becomes of the schema, and the name of a Job that would be created though its exact inputs are not known.
fn migration(cr: &PulseIngest, plan: &ReconcilePlan, is_whole: bool) -> (String, Option<String>) {
    let Some(waiting) = &plan.migration.waiting else { return ("the schema is there".into(), None) };
    if let Some(request) = &plan.migration.create {
        return (format!("Job {} runs `pulse {}`", request.name, request.args.join(" ")), None);
    }
    if is_whole || !plan.missing.is_empty() {
        return (format!("{}: {}", waiting.reason, waiting.message), None);
    }
    // What the operator said of this spec still holds; of another one, it will look first.
    let status = cr.status.clone().unwrap_or_default();
    let said = find(&status.conditions, "Migrated").filter(|_| {
        cr.metadata.generation == Some(status.observed_generation)
            && status.desired_revision.as_ref() == Some(&plan.wanted)
    });
    match said {
        Some(said) => (format!("{}: {}", said.reason, said.message), None),
        None => {
            let kind =
                if cr.spec.migrations.policy == MigrationPolicy::Auto { JobKind::Migrate } else { JobKind::Plan };
            let name = format!("{}-{}-…", cr.name_any(), kind.verb());
            (format!("a Job looks at the schema for {} first", plan.wanted.image), Some(name))
        }
    }
}

fn changes(
    cr: &PulseIngest,
    world: &World,
    observed: &Observed,
    resources: desired::ChildObjects,
    plan: &ReconcilePlan,
    job: Option<String>,
) -> Vec<Change> {
    let desired::ChildObjects { service_accounts, migration, services, disruption_budgets, deployments } = resources;
    let mut changes = Vec::new();
    changes.extend(service_accounts.iter().filter_map(|wanted| change(world, wanted, &observed.service_accounts)));
    let job = migration.map(|job| job.name_any()).or(job);
    changes.extend(job.map(|name| simple("create", format!("Job {name}"))));
    for (name, _) in &plan.migration.expire {
        let job = observed.jobs.iter().find(|job| job.name_any() == *name);
        let kept = job.and_then(|job| job.spec.as_ref()?.ttl_seconds_after_finished);
        if job.is_some() && kept.is_none() {
            changes.push(simple("update", format!("Job {name}")));
        }
    }
    changes.extend(services.iter().filter_map(|wanted| change(world, wanted, &observed.services)));
    changes.extend(disruption_budgets.iter().filter_map(|wanted| change(world, wanted, &observed.disruption_budgets)));
    let live: ByName<Deployment> =
        observed.deployments.values().map(|found| (found.name_any(), found.clone())).collect();
    changes.extend(deployments.iter().filter_map(|(_, wanted)| change(world, wanted, &live)));
    for (role, deployment) in &observed.deployments {
        if let Some(to) = replica_mismatch(cr, *role, deployment) {
            let from = deployment.spec.as_ref().and_then(|spec| spec.replicas);
            let field = Field { path: "spec.replicas".into(), from: from.map(|from| json!(from)), to: Some(json!(to)) };
            let object = format!("Deployment {}", deployment.name_any());
            changes.push(Change { fields: vec![field], ..simple("scale", object) });
        }
    }
    let wanted: Vec<String> = disruption_budgets.iter().map(ResourceExt::name_any).collect();
    let others = observed.disruption_budgets.keys().filter(|name| !wanted.contains(name));
    changes.extend(others.map(|name| simple("delete", format!("PodDisruptionBudget {name}"))));
    changes
}

fn simple(action: &'static str, object: String) -> Change {
    Change { action, object, fields: Vec::new(), restarts: false }
}

/// What would happen to one object that is wanted.
fn change<K>(world: &World, wanted: &K, there: &ByName<K>) -> Option<Change>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let kind = K::kind(&()).into_owned();
    if !world.knows(&kind) {
        return None;
    }
    let name = wanted.name_any();
    let object = format!("{kind} {name}");
    let Some(live) = there.get(&name) else { return Some(simple("create", object)) };
    let mut text = serde_json::to_value(wanted).unwrap_or_default();
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
    Some(Change { fields, restarts, ..simple("update", object) })
}

/// How the number of workers changes. Only the operator sees the queue: without that, a number that follows it is held.
fn scale(cr: &PulseIngest, observed: &Observed, migrating: bool, now: Timestamp) -> Option<Scale> {
    let remembered = &mut workers::ScalingMemory::default();
    let decided = workers::decide(cr, observed, None, migrating, Duration::from_secs(10), remembered, now)?;
    let workers::Decided { workers, decision, .. } = decided;
    let follows = cr.spec.workers.autoscaling.as_ref().is_some_and(|scaling| scaling.mode == AutoscalingMode::Internal);
    let last = cr.status.as_ref().and_then(|status| status.autoscaling.as_ref()?.last_decision.clone());
    let why = if follows && decision.reason == ScalingReason::Unknown {
        let last = last.map(|last| format!("; its last decision was {} → {}: {}", last.from, last.to, last.message));
        format!("it follows the queue, which the operator alone reads{}", last.unwrap_or_default())
    } else {
        decision.message
    };
    Some(Scale { from: workers.replicas, to: decision.replicas, why })
}
