//! One reconcile_object: observe → validate → plan → desired → apply → status.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::Recorder;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use crate::apply::{Applied, Applier, ApplyError, api_message};
use crate::crd::{PulseIngest, PulseIngestStatus, RedisSpec};
use crate::desired::{self, Inputs};
use crate::events;
use crate::memory::{ApplyBackoff, ObjectMemory, jittered};
use crate::metrics::OperatorMetrics;
use crate::names::{self, Role};
use crate::observe::{self, Caches, Observed};
use crate::plan::{self, ReconcilePlan};
use crate::scaling::{Key, Policy, RedisServer, SampleTarget, Samplers};
use crate::secrets::{DigestKey, Hidden, SecretRead};
use crate::status::{self, Findings, ReconcileError};
use crate::workers;

/// The field manager of the status.
const STATUS_MANAGER: &str = "pulse-operator-status";
/// A reconcile_object that takes longer is given up: the object must not be stuck with it.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);
/// What an API that somebody else scales starts with.
const FIRST_API_REPLICAS: i32 = 2;

/// How often things are looked at. Tests shorten them.
#[derive(Debug, Clone)]
pub struct Intervals {
    /// Secrets are read again this long after they were read.
    pub secrets: Duration,
    /// A missing reference is looked for this often.
    pub missing: Duration,
    /// Between two samples of the queue.
    pub poll: Duration,
    /// The first and the longest wait after a failed reconcile_object.
    pub backoff: (Duration, Duration),
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            secrets: Duration::from_secs(60),
            missing: Duration::from_secs(5),
            poll: Duration::from_secs(10),
            backoff: (Duration::from_secs(1), Duration::from_secs(300)),
        }
    }
}

/// Every object that was looked at.
type Objects = HashMap<Key, Arc<tokio::sync::Mutex<ObjectMemory>>>;

impl Intervals {
    /// How long to wait after one more than so many failures in a row.
    pub(crate) fn after(&self, failures: u32) -> Duration {
        let (least, most) = self.backoff;
        least.saturating_mul(1 << failures.min(16)).min(most)
    }
}

/// What every reconcile_object needs.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) recorder: Recorder,
    pub(crate) digest_key: DigestKey,
    pub(crate) pull_secrets: Vec<String>,
    pub(crate) dev_reload: Option<PathBuf>,
    pub(crate) intervals: Intervals,
    pub(crate) metrics: OperatorMetrics,
    pub(crate) samplers: Samplers,
    pub(crate) objects: Mutex<Objects>,
}

/// Runs one reconcile_object; what goes wrong is in the status and in the log, and decides when the next reconcile_object comes.
pub(crate) async fn reconcile(cr: Arc<PulseIngest>, context: Arc<Context>) -> Result<Action, std::convert::Infallible> {
    let started = Instant::now();
    if cr.metadata.deletion_timestamp.is_some() {
        context.forget(&cr.namespace().unwrap_or_default(), &cr.name_any());
        return Ok(Action::await_change());
    }
    let remembered = context.remembered(key(&cr));
    let mut remembered = remembered.lock().await;
    let result = match tokio::time::timeout(RECONCILE_TIMEOUT, reconcile_object(&cr, &context, &mut remembered)).await {
        Ok(result) => result,
        Err(_) => Err(ReconcileAborted::TooLong),
    };
    let (label, next) = match result {
        Ok(next) => {
            remembered.failures = 0;
            ("ok", next)
        }
        Err(error) => {
            let object = names::instance_id(&cr);
            tracing::warn!(object, %error, "a reconcile_object failed");
            remembered.failures += 1;
            ("error", context.intervals.after(remembered.failures - 1))
        }
    };
    context.metrics.reconciled(label, started.elapsed().as_secs_f64());
    Ok(Action::requeue(jittered(next)))
}

#[derive(Debug, thiserror::Error)]
enum ReconcileAborted {
    #[error("the status was not written: {}", api_message(.0))]
    Status(kube::Error),
    #[error("it took longer than {} s", RECONCILE_TIMEOUT.as_secs())]
    TooLong,
}

async fn reconcile_object(
    cr: &PulseIngest,
    context: &Context,
    remembered: &mut ObjectMemory,
) -> Result<Duration, ReconcileAborted> {
    let mut cr = cr.clone();
    cr.spec.image.add_pull_secrets(&context.pull_secrets);
    if let Some((version, status)) = &remembered.written
        && version_of(&cr) < *version
    {
        cr.status = Some(status.clone());
    }
    let now = Timestamp::now();

    // observe: caches, and the API server for Secrets.
    let mut observed = observe::children(context.caches.labelled(&cr), &cr);
    observed.secrets = secrets(&cr, context, remembered).await;

    // plan, desired: no client.
    let plan = plan::plan(&cr, &observed, &context.digest_key, now);
    let missing_for = remembered.missing_for(&plan);
    register_sample_target(&cr, &observed, context);
    let sample = context.samplers.latest(&key(&cr));
    let migrating = plan.migration.waiting.is_some();
    let workers = &mut remembered.workers;
    let decided = workers::decide(&cr, &observed, sample.as_ref(), migrating, context.intervals.poll, workers, now);
    let inputs = Inputs {
        revision: plan.active.as_ref(),
        secrets: plan.secrets.clone(),
        job: plan.migration.create.as_ref(),
        dev_reload: context.dev_reload.as_deref(),
    };
    let resources = desired::resources(&cr, &inputs);

    // apply: the API server.
    let memory = remembered.applied.clone();
    let applier = Applier { client: &context.client, cr: &cr, memory: &memory, dry_run: cr.spec.paused };
    let mut applied = Applied::default();
    let held = remembered.held.as_ref().filter(|held| held.holds(&cr)).map(|held| held.obstacle.clone());
    let mut obstacle = held;
    if obstacle.is_none() {
        let result = apply(&applier, resources, &observed, &plan, &mut applied).await;
        obstacle = result.err().map(|error| remembered.hold(&cr, &context.intervals, &error));
        if obstacle.is_none() {
            remembered.held = None;
        }
    }
    let mut scaled = None;
    if let Some(decided) = &decided {
        let workers = &mut remembered.workers;
        match workers::apply_scaling(&applier, decided, workers, &context.metrics, &mut applied, now).await {
            Ok(changed) => scaled = changed,
            // The next sample decides anew.
            Err(error) => obstacle = obstacle.or(Some(ReconcileError::Error(error.to_string()))),
        }
    }

    // status: pure, then the API server if it says something new.
    let changed = std::mem::take(&mut applied.deployments).into_iter();
    observed.deployments.extend(changed.map(|(role, deployment)| (role, Arc::new(deployment))));
    let pending = if cr.spec.paused { applied.changes } else { Vec::new() };
    let findings = Findings {
        cr: &cr,
        observed: &observed,
        plan: &plan,
        scaling: workers::report(&cr, decided.as_ref(), scaled, &mut remembered.workers, now),
        obstacle,
        missing_for,
        pending,
        now,
    };
    let status = status::status(findings);
    let mut changes = events::edges(&cr.status.clone().unwrap_or_default(), &status);
    changes.extend(events::drift(&applied.drifted));
    context.metrics.observe(
        &cr.namespace().unwrap_or_default(),
        &cr.name_any(),
        status.workers.desired,
        status.workers.ready,
        status.autoscaling.as_ref().and_then(|scaling| scaling.backlog),
    );
    write_status(&cr, context, remembered, status).await?;
    // What could not be written is found again, and changes then.
    events::publish(&context.recorder, &cr, changes).await;
    let waits = !plan.missing.is_empty() || !plan.unreadable.is_empty();
    let next = if waits { context.intervals.missing } else { context.intervals.secrets };
    let again = remembered.held.as_ref().map(ApplyBackoff::remaining);
    let next = again.map_or(next, |again| again.min(next));
    let wake = decided.and_then(|decided| time_until_wake(decided.decision.next_wake?, now));
    Ok(wake.map_or(next, |wake| wake.min(next)))
}

/// How long until a retry falls due that nobody is there for. One that is due already and woke nobody is held by a
/// pause or a bound: looking again at once would not help.
fn time_until_wake(wake: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(wake.duration_since(now)).ok().filter(|wait| !wait.is_zero())
}

fn key(cr: &PulseIngest) -> Key {
    Key { namespace: cr.namespace().unwrap_or_default(), name: cr.name_any(), uid: cr.uid().unwrap_or_default() }
}

/// Has the queue sampled, once its address is known. An address that cannot be read now is still the last one.
fn register_sample_target(cr: &PulseIngest, observed: &Observed, context: &Context) {
    let RedisSpec { url_secret_ref, ca_secret_ref } = &cr.spec.redis;
    let found = |key| observed.secrets.get(key).and_then(SecretRead::found).map(Hidden::reveal);
    let Some(url) = found(url_secret_ref).and_then(|url| std::str::from_utf8(url).ok()) else { return };
    let ca = ca_secret_ref.as_ref().map(|key| found(key).map(<[u8]>::to_vec));
    if ca != Some(None) {
        let server = RedisServer { url: url.trim().to_owned(), ca: ca.flatten() };
        context.samplers.add(SampleTarget { instance: names::instance_id(cr), server, key: key(cr) });
    }
}

async fn apply(
    applier: &Applier<'_>,
    resources: desired::ChildObjects,
    observed: &Observed,
    plan: &ReconcilePlan,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    let poll = jiff::SignedDuration::ZERO;
    let workers = Policy::new(&applier.cr.spec, poll).initial_replicas();
    let initial = |role| {
        // An API that somebody else scales starts with the default.
        let otherwise = if role == Role::Worker { workers.cast_signed() } else { FIRST_API_REPLICAS };
        desired::replicas(applier.cr, role).unwrap_or(otherwise)
    };
    let made = applier.apply(resources, observed, initial, applied).await;
    let expired = applier.expire(&plan.migration.expire, observed).await;
    made.and(expired).and(scale(applier, observed, applied).await)
}

/// How many pods a Deployment should have, where that follows from the spec and is not as it has it.
pub(crate) fn replica_mismatch(cr: &PulseIngest, role: Role, deployment: &Deployment) -> Option<i32> {
    let seen = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    // Nobody scales up from zero: an API that somebody else scales was stopped by us, and is started again by us.
    let started = (role == Role::Api && seen == Some(0)).then_some(FIRST_API_REPLICAS);
    desired::replicas(cr, role).or(started).filter(|wanted| seen != Some(*wanted))
}

/// The numbers of pods that follow from the spec.
async fn scale(applier: &Applier<'_>, observed: &Observed, applied: &mut Applied) -> Result<(), ApplyError> {
    for (role, deployment) in &observed.deployments {
        let Some(wanted) = replica_mismatch(applier.cr, *role, deployment) else { continue };
        let name = deployment.name_any();
        applied.changes.push(crate::crd::PendingChange {
            object: format!("Deployment {name}"),
            action: "scale".into(),
            restarts: false,
        });
        if applier.dry_run {
            continue;
        }
        if let Some(live) = applier.live(&name).await?
            && live.spec.as_ref().and_then(|spec| spec.replicas) != Some(wanted)
        {
            applier.scale(&live, wanted).await?;
        }
    }
    Ok(())
}

/// The Secrets, read again only when it is time: an object that is looked at often must not read them as often.
async fn secrets(
    cr: &PulseIngest,
    context: &Context,
    remembered: &mut ObjectMemory,
) -> std::collections::BTreeMap<crate::crd::SecretKey, SecretRead> {
    if let Some((at, generation, readings)) = &remembered.secrets {
        let complete = readings.values().all(|reading| reading.found().is_some());
        let patience = if complete { context.intervals.secrets } else { context.intervals.missing };
        let covers = observe::referenced(cr).iter().all(|key| readings.contains_key(key));
        if covers && *generation == cr.metadata.generation && at.elapsed() < patience {
            return readings.clone();
        }
    }
    let readings = observe::secrets(&context.client, cr).await;
    remembered.secrets = Some((Instant::now(), cr.metadata.generation, readings.clone()));
    readings
}

async fn write_status(
    cr: &PulseIngest,
    context: &Context,
    remembered: &mut ObjectMemory,
    status: PulseIngestStatus,
) -> Result<(), ReconcileAborted> {
    if cr.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<PulseIngest> = Api::namespaced(context.client.clone(), &cr.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": PulseIngest::api_version(&()),
        "kind": PulseIngest::kind(&()),
        // An object that was made again under the same name is another one.
        "metadata": { "uid": cr.uid() },
        "status": status,
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    match api.patch_status(&cr.name_any(), &params, &Patch::Apply(&patch)).await {
        Ok(written) => {
            remembered.written = Some((version_of(&written), status));
            Ok(())
        }
        // It was deleted meanwhile.
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Err(error) => Err(ReconcileAborted::Status(error)),
    }
}

/// Versions of one kind grow, and may be compared, since Kubernetes 1.35; all servers have always done so with etcd.
fn version_of(cr: &PulseIngest) -> u64 {
    cr.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl Context {
    fn remembered(&self, key: Key) -> Arc<tokio::sync::Mutex<ObjectMemory>> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(remembered) = objects.get(&key) {
            return remembered.clone();
        }
        // Another object of this name was there before.
        self.forget_all(&mut objects, &key.namespace, &key.name);
        objects.entry(key).or_default().clone()
    }

    /// Forgets an object that is gone.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        self.forget_all(&mut objects, namespace, name);
        self.metrics.forget(namespace, name);
    }

    fn forget_all(&self, objects: &mut Objects, namespace: &str, name: &str) {
        for (key, _) in objects.extract_if(|key, _| key.namespace == namespace && key.name == name) {
            self.samplers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_that_is_past_is_not_looked_at_again_at_once() {
        let at = |second| Timestamp::from_second(second).expect("valid");
        assert_eq!(time_until_wake(at(70), at(60)), Some(Duration::from_secs(10)));
        assert_eq!(time_until_wake(at(60), at(60)), None);
        assert_eq!(time_until_wake(at(50), at(60)), None);
    }

    #[test]
    fn failures_are_waited_for_twice_as_long_each_time() {
        let intervals = Intervals::default();
        let waits = [0, 1, 2, 20, u32::MAX].map(|failures| intervals.after(failures).as_secs());
        assert_eq!(waits, [1, 2, 4, 300, 300]);
    }
}
