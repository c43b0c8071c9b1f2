//! One reconcile of an object: observe → plan → desired → apply → status.

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

use crate::apply::{Applier, ApplyError, ApplyReport};
use crate::client::api_message;
use crate::connections::Use;
use crate::crd::{PulseIngest, PulseIngestStatus, RedisSpec, WorkersStatus};
use crate::desired::{self, Inputs};
use crate::events;
use crate::intervals::Intervals;
use crate::memory::{ApplyBackoff, ObjectMemory, jittered};
use crate::metrics::OperatorMetrics;
use crate::names::{self, Role};
use crate::observe::{self, Caches, Observed, Readable};
use crate::plan::{self, ReconcilePlan};
use crate::scaling::{Key, Policy, RedisServer, SampleTarget, Samplers};
use crate::secrets::{DigestKey, SecretRead, SecretValue};
use crate::served::Served;
use crate::status::{self, ReconcileError, StatusInputs};
use crate::workers::{self, Changing};

/// The field manager of the status.
const STATUS_MANAGER: &str = "pulse-operator-status";
/// Time limit of a reconcile. A longer one is aborted, so that it does not block the object.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);

/// The memory of every object that was reconciled.
type Objects = HashMap<Key, Arc<tokio::sync::Mutex<ObjectMemory>>>;

/// Shared by all reconciles.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) recorder: Recorder,
    pub(crate) digest_key: DigestKey,
    pub(crate) served: tokio::sync::watch::Receiver<Arc<Served>>,
    pub(crate) pull_secrets: Vec<String>,
    pub(crate) dev_reload: Option<PathBuf>,
    pub(crate) intervals: Intervals,
    pub(crate) metrics: OperatorMetrics,
    pub(crate) samplers: Samplers,
    pub(crate) objects: Mutex<Objects>,
}

/// Reconciles an object once, and returns when to reconcile it again. Errors go into the status and the log, and are
/// retried with a back-off.
pub(crate) async fn reconcile(
    object: Arc<Readable>,
    context: Arc<Context>,
) -> Result<Action, std::convert::Infallible> {
    let started = Instant::now();
    if object.meta().deletion_timestamp.is_some() {
        context.forget(&object.namespace().unwrap_or_default(), &object.name_any());
        return Ok(Action::await_change());
    }
    let cr = match &object.0 {
        Ok(cr) => cr,
        Err(invalid) => {
            leave_unreadable(&object, &invalid.error, &context).await;
            return Ok(Action::await_change());
        }
    };
    let memory = context.memory(key(cr));
    let mut memory = memory.lock().await;
    let result = match tokio::time::timeout(RECONCILE_TIMEOUT, reconcile_object(cr, &context, &mut memory)).await {
        Ok(result) => result,
        Err(_) => Err(ReconcileAborted::TimedOut),
    };
    let (label, next) = match result {
        Ok(next) => {
            memory.failures = 0;
            ("ok", next)
        }
        Err(error) => {
            let object = names::instance_id(cr);
            tracing::warn!(object, %error, "reconcile failed");
            memory.failures += 1;
            ("error", context.intervals.after(memory.failures - 1))
        }
    };
    context.metrics.reconciled(label, started.elapsed().as_secs_f64());
    Ok(Action::requeue(jittered(next)))
}

/// Reports an object that only a newer version can read. Its pods stay as they are, and all other objects are reconciled.
async fn leave_unreadable(object: &Readable, error: &str, context: &Context) {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    tracing::error!(object = format!("{namespace}/{name}"), error, "cannot read the object: upgrade the operator");
    // Samples would trigger more reconciles.
    context.forget(&namespace, &name);
    context.metrics.set_unreadable(&namespace, &name);
    events::publish(&context.recorder, &object.object_ref(&()), vec![events::unreadable(error)]).await;
}

#[derive(Debug, thiserror::Error)]
enum ReconcileAborted {
    #[error("cannot write the status: {}", api_message(.0))]
    Status(kube::Error),
    #[error("timed out after {} s", RECONCILE_TIMEOUT.as_secs())]
    TimedOut,
}

async fn reconcile_object(
    cr: &PulseIngest,
    context: &Context,
    memory: &mut ObjectMemory,
) -> Result<Duration, ReconcileAborted> {
    let cr = with_newest_status(cr, context, memory);
    let now = Timestamp::now();

    // observe: the caches, and the API server for Secrets.
    let mut observed = observe::children(context.caches.labelled(&cr), &cr);
    observed.secrets = secrets(&cr, context, memory).await;
    observed.job_rejections = observe::job_rejections(&context.client, &observed).await;

    // plan, desired: pure.
    let plan = plan::plan(&cr, &observed, &context.digest_key, now);
    let missing_duration = memory.missing_duration(&plan);
    register_sample_target(&cr, &observed, context);
    let sample = context.samplers.latest(&key(&cr));
    let redis = context.samplers.looked_up(&key(&cr));
    memory.rollouts.observe(&observed);
    let rolling_out = memory.rollouts.is_rolling(&observed, Role::Worker);
    let changing = Changing { rolling_out, migrating: plan.migration.waiting.is_some() };
    let (poll, workers) = (context.intervals.poll, &mut memory.workers);
    let decided = workers::decide(&cr, &observed, sample.as_ref(), changing, poll, workers, now);
    let inputs = Inputs {
        revision: plan.active.as_ref(),
        secrets: plan.secrets.clone(),
        job: plan.migration.create.as_ref(),
        dev_reload: context.dev_reload.as_deref(),
    };
    let resources = desired::resources(&cr, &inputs);

    // apply: the API server.
    let applied_cache = memory.applied.clone();
    let used = Use::of(&cr, &observed, now).filter(|_| !cr.spec.paused);
    let (used, dry_run) = (used.as_ref(), cr.spec.paused);
    let applier = Applier { client: &context.client, cr: &cr, memory: &applied_cache, dry_run, used };
    let mut applied = ApplyReport::default();
    let mut failure = apply_objects(&applier, resources, &observed, &plan, context, memory, &mut applied).await;
    let mut scaled = None;
    if let Some(decided) = &decided {
        let workers = &mut memory.workers;
        match workers::apply_scaling(&applier, decided, workers, &context.metrics, &mut applied, now).await {
            Ok(changed) => scaled = changed,
            // The next sample triggers another decision.
            Err(error) => failure = failure.or(Some(ReconcileError::Error(error.to_string()))),
        }
    }

    // status: pure, then the API server if the status changed.
    let changed = std::mem::take(&mut applied.deployments).into_iter();
    observed.deployments.extend(changed.map(|(role, deployment)| (role, Arc::new(deployment))));
    let pending = if cr.spec.paused { applied.changes } else { Vec::new() };
    let served = context.served.borrow().clone();
    let status_inputs = StatusInputs {
        cr: &cr,
        observed: &observed,
        plan: &plan,
        rollouts: &memory.rollouts,
        scaling: workers::report(&cr, &observed, decided.as_ref(), scaled, redis.as_deref(), &mut memory.workers, now),
        failure,
        missing_duration,
        pending,
        crd_outdated: served.condition(),
        held: applied.held,
        now,
    };
    let status = served.as_stored(status::status(status_inputs));
    let mut changes = events::transitions(&cr.status.clone().unwrap_or_default(), &status);
    changes.extend(events::drift(&applied.drifted));
    record(&cr, context, &status);
    write_status(&cr, context, memory, &served, status).await?;
    // After a failed write of the status, the next reconcile finds the same changes again.
    events::publish(&context.recorder, &cr.object_ref(&()), changes).await;
    let wake = decided.and_then(|decided| decided.decision.next_wake);
    Ok(time_until_next(&observed, &plan, memory, wake, context, now))
}

/// Returns the object with the operator's pull Secrets, and with the status that was written last if the cache does not
/// have it yet.
fn with_newest_status(cr: &PulseIngest, context: &Context, memory: &ObjectMemory) -> PulseIngest {
    let mut cr = cr.clone();
    cr.spec.image.add_pull_secrets(&context.pull_secrets);
    if let Some((version, status)) = &memory.written
        && version_of(&cr) < *version
    {
        cr.status = Some(status.clone());
    }
    cr
}

/// Sets the metrics of the object.
fn record(cr: &PulseIngest, context: &Context, status: &PulseIngestStatus) {
    let backlog = status.autoscaling.as_ref().and_then(|scaling| scaling.backlog);
    let WorkersStatus { desired, ready, .. } = status.workers;
    context.metrics.record(&names::namespace(cr), &cr.name_any(), desired, ready, backlog);
}

/// Applies the objects, unless a backoff is active. Returns the error, or that of the backoff.
async fn apply_objects(
    applier: &Applier<'_>,
    resources: desired::ChildObjects,
    observed: &Observed,
    plan: &ReconcilePlan,
    context: &Context,
    memory: &mut ObjectMemory,
    applied: &mut ApplyReport,
) -> Option<ReconcileError> {
    if let Some(backoff) = memory.backoff.as_ref().filter(|backoff| backoff.is_active(applier.cr)) {
        return Some(backoff.failure.clone());
    }
    match apply(applier, resources, observed, plan, applied).await {
        Ok(()) => {
            memory.backoff = None;
            None
        }
        Err(error) => Some(memory.start_backoff(applier.cr, &context.intervals, &error)),
    }
}

/// Time until the next reconcile, if nothing triggers one before.
fn time_until_next(
    observed: &Observed,
    plan: &ReconcilePlan,
    memory: &ObjectMemory,
    wake: Option<Timestamp>,
    context: &Context,
    now: Timestamp,
) -> Duration {
    // The Events of a Job without pods are not watched.
    let lacks_pods = observed.jobs.iter().any(|job| observe::lacks_pods(job, observed));
    let is_waiting = !plan.missing.is_empty() || !plan.unreadable.is_empty() || lacks_pods;
    let next = if is_waiting { context.intervals.missing } else { context.intervals.secrets };
    let retry = memory.backoff.as_ref().map(ApplyBackoff::remaining);
    let wake = wake.and_then(|wake| time_until_wake(wake, now));
    [retry, wake].into_iter().flatten().fold(next, Duration::min)
}

/// Time until the next wake-up. `None` for an overdue one: a pause or a limit suppresses it, so reconciling again at
/// once would change nothing.
fn time_until_wake(wake: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(wake.duration_since(now)).ok().filter(|wait| !wait.is_zero())
}

fn key(cr: &PulseIngest) -> Key {
    Key { namespace: names::namespace(cr), name: cr.name_any(), uid: cr.uid().unwrap_or_default() }
}

/// Registers the queue for sampling once its URL is known. While the Secret cannot be read, the last URL stays.
fn register_sample_target(cr: &PulseIngest, observed: &Observed, context: &Context) {
    let RedisSpec { url_secret_ref, ca_secret_ref } = &cr.spec.redis;
    let found = |key| observed.secrets.get(key).and_then(SecretRead::found).map(SecretValue::reveal);
    let Some(url) = found(url_secret_ref).and_then(|url| std::str::from_utf8(url).ok()) else { return };
    let ca = ca_secret_ref.as_ref().map(|key| found(key).map(<[u8]>::to_vec));
    if ca != Some(None) {
        let server = RedisServer::new(url, ca.flatten(), &names::namespace(cr));
        context.samplers.add(SampleTarget { instance: names::instance_id(cr), server, key: key(cr) });
    }
}

async fn apply(
    applier: &Applier<'_>,
    resources: desired::ChildObjects,
    observed: &Observed,
    plan: &ReconcilePlan,
    applied: &mut ApplyReport,
) -> Result<(), ApplyError> {
    let poll = jiff::SignedDuration::ZERO;
    let workers = Policy::new(&applier.cr.spec, poll).initial_replicas();
    let initial = |role| {
        // A worker Deployment starts with the policy's number, an API of another scaler with that of the spec.
        let initial = if role == Role::Worker { workers } else { applier.cr.spec.api.replicas };
        desired::replicas(applier.cr, role).unwrap_or(initial.cast_signed())
    };
    let made = applier.apply(resources, observed, initial, applied).await;
    let expired = applier.expire(&plan.migration.expire, observed).await;
    made.and(expired).and(scale(applier, observed, applied).await)
}

/// The replicas that a Deployment should have: those of the spec, also for an API of another scaler that was stopped.
/// `None` if the Deployment has them already, or if another scaler sets them.
pub(crate) fn replica_mismatch(cr: &PulseIngest, role: Role, deployment: &Deployment) -> Option<i32> {
    let seen = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    // An external scaler never scales up from zero: an API at zero was stopped by us, so we start it again.
    let started = (role == Role::Api && seen == Some(0)).then_some(cr.spec.api.replicas.cast_signed());
    desired::replicas(cr, role).or(started).filter(|wanted| seen != Some(*wanted))
}

/// Scales the Deployments whose replicas the spec sets.
async fn scale(applier: &Applier<'_>, observed: &Observed, applied: &mut ApplyReport) -> Result<(), ApplyError> {
    for (role, deployment) in &observed.deployments {
        let Some(wanted) = replica_mismatch(applier.cr, *role, deployment) else { continue };
        let name = deployment.name_any();
        let adds_pods = deployment.spec.as_ref().and_then(|spec| spec.replicas).is_some_and(|now| wanted > now);
        if adds_pods && applier.used.is_some_and(|used| used.holds(*role, true)) {
            applied.held.push(name);
            continue;
        }
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

/// The Secrets, from memory unless they are due to be read again: not every reconcile may read them.
async fn secrets(
    cr: &PulseIngest,
    context: &Context,
    memory: &mut ObjectMemory,
) -> std::collections::BTreeMap<crate::crd::SecretKey, SecretRead> {
    if let Some((at, generation, reads)) = &memory.secrets {
        let complete = reads.values().all(|read| read.found().is_some());
        let max_age = if complete { context.intervals.secrets } else { context.intervals.missing };
        let covers = observe::referenced(cr).iter().all(|key| reads.contains_key(key));
        if covers && *generation == cr.metadata.generation && at.elapsed() < max_age {
            return reads.clone();
        }
    }
    let reads = observe::secrets(&context.client, cr).await;
    memory.secrets = Some((Instant::now(), cr.metadata.generation, reads.clone()));
    reads
}

async fn write_status(
    cr: &PulseIngest,
    context: &Context,
    memory: &mut ObjectMemory,
    served: &Served,
    status: PulseIngestStatus,
) -> Result<(), ReconcileAborted> {
    if cr.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let api: Api<PulseIngest> = Api::namespaced(context.client.clone(), &names::namespace(cr));
    let patch = json!({
        "apiVersion": PulseIngest::api_version(&()),
        "kind": PulseIngest::kind(&()),
        // The UID keeps the status off a new object of the same name.
        "metadata": { "uid": cr.uid() },
        "status": served.fit(&status),
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    match api.patch_status(&cr.name_any(), &params, &Patch::Apply(&patch)).await {
        Ok(written) => {
            memory.written = Some((version_of(&written), status));
            Ok(())
        }
        // The object was deleted in the meantime.
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Err(error) => Err(ReconcileAborted::Status(error)),
    }
}

/// The resource version as a number. Kubernetes 1.35 guarantees that versions of one kind can be compared; with etcd,
/// all earlier servers behave the same.
fn version_of(cr: &PulseIngest) -> u64 {
    cr.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl Context {
    fn memory(&self, key: Key) -> Arc<tokio::sync::Mutex<ObjectMemory>> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = objects.get(&key) {
            return memory.clone();
        }
        // Drops the memory of an earlier object of the same name.
        self.drop_memory(&mut objects, &key.namespace, &key.name);
        objects.entry(key).or_default().clone()
    }

    /// Drops the memory, the samples and the metrics of a deleted object.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        self.drop_memory(&mut objects, namespace, name);
        self.metrics.forget(namespace, name);
    }

    fn drop_memory(&self, objects: &mut Objects, namespace: &str, name: &str) {
        for (key, _) in objects.extract_if(|key, _| key.namespace == namespace && key.name == name) {
            self.samplers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overdue_wake_up_does_not_requeue_at_once() {
        let at = |second| Timestamp::from_second(second).expect("valid");
        assert_eq!(time_until_wake(at(70), at(60)), Some(Duration::from_secs(10)));
        assert_eq!(time_until_wake(at(60), at(60)), None);
        assert_eq!(time_until_wake(at(50), at(60)), None);
    }
}
