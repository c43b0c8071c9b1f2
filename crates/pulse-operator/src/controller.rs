//! One reconcile of an object: decide → apply → publish.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use pulse_crd::names::{self, Role};
use pulse_crd::{PulseIngest, PulseIngestStatus, RedisSpec, SecretKey, WorkersStatus};
use pulse_reconcile::condition::find;
use pulse_reconcile::connections::Use;
use pulse_reconcile::desired::{self, Inputs};
use pulse_reconcile::observed::{self, Observed};
use pulse_reconcile::owner::{self, Owner};
use pulse_reconcile::plan::{self, ReconcilePlan};
use pulse_reconcile::rollout::Rollouts;
use pulse_reconcile::scaling::Rules;
use pulse_reconcile::secret_reads::SecretReads;
use pulse_reconcile::secrets::{SecretRead, SecretValue};
use pulse_reconcile::status::{self, StatusInputs};
use pulse_reconcile::unapplied::Unapplied;
use pulse_reconcile::workers::{self, Changing, ScalingPlan};

use crate::apply::{Applier, ApplyReport};
use crate::context::{Context, key};
use crate::events;
use crate::instances::Readable;
use crate::jitter::jittered;
use crate::memory::ObjectMemory;
use crate::observe;
use crate::replicas;
use crate::scaling::{Key, RedisServer, SampleTarget};
use crate::status_writer::{self, StatusError, version_of};
use crate::workers::apply_scaling;

/// Time limit of a reconcile. A longer one is aborted, so that it does not block the object.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time until the next reconcile if the status has to be computed again.
const AGAIN: Duration = Duration::from_secs(1);

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
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error("timed out after {} s", RECONCILE_TIMEOUT.as_secs())]
    TimedOut,
}

async fn reconcile_object(
    cr: &PulseIngest,
    context: &Context,
    memory: &mut ObjectMemory,
) -> Result<Duration, ReconcileAborted> {
    let (started, now) = (Instant::now(), Timestamp::now());
    let mut cr = with_newest_status(cr, context, memory);
    match owner::owner(&cr, &context.identity) {
        Owner::This => {}
        Owner::Unclaimed => status_writer::claim(&context.client, &mut cr, memory, &context.identity).await?,
        Owner::Other(other) => return Ok(leave_to(&other, &cr, context, memory).await),
    }
    memory.other_operator = None;
    let decided = decide(cr, context, memory, started, now).await;
    let applied = apply(&decided, context, memory).await;
    publish(decided, applied, context, memory).await
}

/// What was observed of an object and decided about it.
struct Decided {
    cr: PulseIngest,
    instance: Key,
    observed: Observed,
    plan: ReconcilePlan,
    scaling: Option<ScalingPlan>,
    missing_duration: Option<Duration>,
    started: Instant,
    now: Timestamp,
}

/// Observes the object through the caches, and the Secrets through the API server. The decisions are pure.
async fn decide(
    cr: PulseIngest,
    context: &Context,
    memory: &mut ObjectMemory,
    started: Instant,
    now: Timestamp,
) -> Decided {
    let instance = key(&cr);
    let mut observed = observed::children(context.caches.labelled(&cr), &cr);
    observed.secrets = secrets(&cr, &observed, context, memory).await;
    let (client, budget) = (&context.client, &context.event_budget);
    observed.job_rejections = memory.job_rejections.read(client, &observed, budget, &context.intervals, now).await;
    let plan = plan::plan(&cr, &observed, &context.digest_key, now);
    let missing_duration = memory.missing_duration(&plan);
    register_sample_target(&cr, &observed, context);
    let sample = context.samplers.latest(&instance);
    memory.rollouts.observe(&observed);
    let rolling_out = memory.rollouts.is_rolling(&observed, Role::Worker);
    let changing = Changing { rolling_out, migrating: plan.migration.waiting.is_some() };
    let (poll, workers) = (context.intervals.poll, &mut memory.workers);
    let scaling = workers::decide(&cr, &observed, sample.as_ref(), changing, poll, workers, now);
    Decided { cr, instance, observed, plan, scaling, missing_duration, started, now }
}

/// What was applied.
struct Applied {
    report: ApplyReport,
    /// What kept it from applying everything.
    unapplied: Option<Unapplied>,
    /// The number of workers before and after it was changed.
    scaled: Option<(u32, u32)>,
}

async fn apply(decided: &Decided, context: &Context, memory: &mut ObjectMemory) -> Applied {
    let Decided { cr, instance, observed, plan, scaling, started, now, .. } = decided;
    let inputs = Inputs {
        revision: plan.active.as_ref(),
        secrets: plan.secrets.clone(),
        job: plan.migration.create.as_ref(),
        dev_reload: context.dev_reload.as_deref(),
    };
    let resources = desired::resources(cr, &inputs);
    let used = Use::of(cr, observed, *now).filter(|_| !cr.spec.paused);
    let apply_memory = memory.applied.clone();
    let known = context.caches.objects.count();
    let applier = Applier {
        client: &context.client,
        cr,
        memory: &apply_memory,
        intervals: &context.intervals,
        now: *started,
        may_roll: &|| context.rollout_queue.may_begin(instance, known),
        used: used.as_ref(),
        dry_run: cr.spec.paused,
    };
    let mut report = ApplyReport::default();
    let mut unapplied = apply_resources(&applier, resources, observed, plan, &mut report).await;
    let mut scaled = None;
    if let Some(scaling) = scaling {
        match apply_scaling(&applier, scaling, &memory.workers, &context.metrics, &mut report).await {
            Ok(changed) => scaled = changed,
            // The next sample triggers another decision.
            Err(error) => unapplied = unapplied.or(Some(error.unapplied())),
        }
    }
    let unapplied = unapplied.or_else(|| memory.decisions.failure().cloned());
    Applied { report, unapplied, scaled }
}

/// Writes the status if it has changed, and Events. Returns the time until the next reconcile.
async fn publish(
    decided: Decided,
    applied: Applied,
    context: &Context,
    memory: &mut ObjectMemory,
) -> Result<Duration, ReconcileAborted> {
    let Decided { cr, instance, mut observed, mut plan, scaling, missing_duration, started, now } = decided;
    let Applied { report, unapplied, scaled } = applied;
    plan.hold_queued(&cr, &report.queued);
    observed.deployments.extend(report.deployments.into_iter().map(|(role, deployment)| (role, Arc::new(deployment))));
    let (served, redis) = (context.served.borrow().clone(), context.samplers.looked_up(&instance));
    let status_inputs = StatusInputs {
        cr: &cr,
        observed: &observed,
        plan: &plan,
        rollouts: &memory.rollouts,
        scaling: workers::report(&cr, &observed, scaling.as_ref(), scaled, redis.as_deref(), &mut memory.workers, now),
        unapplied,
        missing_duration,
        pending: if cr.spec.paused { report.changes } else { Vec::new() },
        crd_outdated: served.condition(),
        held: report.held,
        now,
    };
    let status = served.as_stored(status::status(status_inputs));
    let decisions = has_console(&cr, &observed).then(|| desired::config_map(&cr, &status));
    let mut changes = events::transitions(&cr.status.clone().unwrap_or_default(), &status);
    changes.extend(events::drift(&report.drifted));
    record(&cr, context, &status);
    let is_rolling = is_rolling(&observed, &plan, &memory.rollouts, &status);
    context.observe_rollout(&instance, is_rolling, !report.queued.is_empty());
    status_writer::write(&context.client, &cr, memory, &served, status).await?;
    // After a failed write of the status, the next reconcile finds the same changes again.
    events::publish(&context.recorder, &cr.object_ref(&()), changes).await;
    let again = write_decisions(decisions, &cr, context, memory, started).await.then_some(AGAIN);
    let wake = scaling.and_then(|scaling| scaling.decision.next_wake);
    let retry = [memory.applied.next_attempt(started), again].into_iter().flatten().min();
    Ok(time_until_next(&observed, &plan, retry, wake, context, now))
}

/// Whether a console shows the decisions. During a pause, only one that exists already.
fn has_console(cr: &PulseIngest, observed: &Observed) -> bool {
    cr.spec.console.enabled && (!cr.spec.paused || observed.deployments.contains_key(&Role::Console))
}

/// Writes the decisions for the console, as a copy of the status, which is written during a pause, too. Returns whether the
/// status has to be computed again.
async fn write_decisions(
    decisions: Option<ConfigMap>,
    cr: &PulseIngest,
    context: &Context,
    memory: &mut ObjectMemory,
    started: Instant,
) -> bool {
    let apply_memory = memory.applied.clone();
    let applier = Applier {
        client: &context.client,
        cr,
        memory: &apply_memory,
        intervals: &context.intervals,
        now: started,
        may_roll: &|| true,
        used: None,
        dry_run: false,
    };
    memory.decisions.write(&applier, decisions).await
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

/// Does nothing with an object of another operator, but reports it once.
async fn leave_to(other: &str, cr: &PulseIngest, context: &Context, memory: &mut ObjectMemory) -> Duration {
    if memory.other_operator.as_deref() != Some(other) {
        let explanation = owner::explain(cr, other, &context.identity);
        tracing::warn!(object = names::instance_id(cr), "{explanation}");
        events::publish(&context.recorder, &cr.object_ref(&()), vec![events::not_reconciled(&explanation)]).await;
        memory.other_operator = Some(other.to_owned());
        context.disown(&key(cr));
    }
    context.intervals.secrets
}

/// Whether the pods or the schema of a running instance are being replaced. A rollout that makes no progress lets the
/// next one begin: one broken instance must not stop all others.
fn is_rolling(observed: &Observed, plan: &ReconcilePlan, rollouts: &Rollouts, status: &PulseIngestStatus) -> bool {
    let is_stalled = find(&status.conditions, "Stalled").is_some();
    let is_migrating = plan.migration.is_running() && !observed.deployments.is_empty();
    !is_stalled && (is_migrating || Role::ALL.into_iter().any(|role| rollouts.is_rolling(observed, role)))
}

/// Time until the next reconcile, if nothing triggers one before.
fn time_until_next(
    observed: &Observed,
    plan: &ReconcilePlan,
    retry: Option<Duration>,
    wake: Option<Timestamp>,
    context: &Context,
    now: Timestamp,
) -> Duration {
    // The Events of a Job without pods are not watched.
    let lacks_pods = observed.jobs.iter().any(|job| observed::lacks_pods(job, observed));
    let is_waiting = !plan.missing.is_empty() || !plan.unreadable.is_empty() || plan.migration.unended || lacks_pods;
    let next = if is_waiting { context.intervals.missing } else { context.intervals.secrets };
    let wake = wake.and_then(|wake| time_until_wake(wake, now));
    [retry, wake].into_iter().flatten().fold(next, Duration::min)
}

/// Time until the next wake-up. `None` for an overdue one: a pause or a limit suppresses it, so reconciling again at
/// once would change nothing.
fn time_until_wake(wake: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(wake.duration_since(now)).ok().filter(|wait| !wait.is_zero())
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

/// Applies the objects. Returns what kept it from applying all of them.
async fn apply_resources(
    applier: &Applier<'_>,
    resources: desired::ChildObjects,
    observed: &Observed,
    plan: &ReconcilePlan,
    applied: &mut ApplyReport,
) -> Option<Unapplied> {
    let poll = jiff::SignedDuration::ZERO;
    let workers = Rules::new(&applier.cr.spec, poll).policy.initial_replicas();
    let initial = |role| {
        // A worker Deployment starts with the policy's number, an API of another scaler with that of the spec.
        let initial = if role == Role::Worker { workers } else { applier.cr.spec.api.replicas };
        desired::replicas(applier.cr, role).unwrap_or(initial.cast_signed())
    };
    let made = applier.apply(resources, observed, plan, initial, applied).await;
    let result = made.and(replicas::scale(applier, observed, applied).await);
    let failure = result.err().map(|error| error.unapplied());
    let contested = || applier.memory.fights.contested(applier.now).filter(|_| !applier.dry_run);
    let queued = || (!applied.queued.is_empty()).then(|| plan::queued(&applied.queued));
    failure.or_else(contested).or_else(queued)
}

/// The Secrets, from memory unless they are due to be read again: not every reconcile may read them.
async fn secrets(
    cr: &PulseIngest,
    observed: &Observed,
    context: &Context,
    memory: &mut ObjectMemory,
) -> BTreeMap<SecretKey, SecretRead> {
    let remembered = memory.secrets.as_ref();
    let current = remembered.and_then(|reads| reads.current(cr, observed, context.reconciled(), &context.intervals));
    if let Some(reads) = current {
        return reads;
    }
    let reads = observe::secrets(&context.client, cr).await;
    memory.secrets = Some(SecretReads::new(cr, reads.clone()));
    reads
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
