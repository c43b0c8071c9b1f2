//! Scales the workers of one object: gathers the inputs of `scaling`, applies its decision, and reports it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::apply::{Applier, ApplyError, ApplyReport};
use crate::condition::ConditionStatus::{False, True, Unknown};
use crate::condition::{ConditionState, find};
use crate::connections::Use;
use crate::crd::{AutoscalingMode, AutoscalingPause, AutoscalingStatus, LastDecision, PendingChange, PulseIngest};
use crate::metrics::OperatorMetrics;
use crate::names::{DELETION_COST, Role};
use crate::observe::Observed;
use crate::pods;
use crate::rollout;
use crate::scaling::{
    Decision, History, Limit, Policy, Sample, ScalingReason, WorkerPod, Workers, choose_victims, plan_workers,
};
use crate::status::ScalingReport;

/// Minimum and maximum age of the measurements in the status. Each refresh is a write.
const REFRESH: SignedDuration = SignedDuration::from_secs(30);
/// Poll intervals to wait for the first sample after a start.
const STARTUP_POLLS: i32 = 3;
/// Types of the conditions that describe scaling.
const CONDITIONS: [&str; 4] = ["QueueReachable", "ScalingActive", "ScalingLimited", "BacklogWithinTarget"];

/// State of an object's workers between reconciles.
#[derive(Default)]
pub(crate) struct ScalingMemory {
    history: Option<History>,
    /// Time of the newest sample that was taken into the history.
    seen: Option<Timestamp>,
    in_flight: BTreeMap<String, u64>,
    refreshed: Option<Timestamp>,
    /// Last change of the number of workers. The status that records it may not have been written.
    scaled: Option<LastDecision>,
}

/// What changes the workers besides their number.
#[derive(Clone, Copy)]
pub(crate) struct Changing {
    /// A rollout replaces worker pods.
    pub(crate) rolling_out: bool,
    /// A migration runs or is pending.
    pub(crate) migrating: bool,
}

/// A decision that has not been applied yet.
pub(crate) struct ScalingPlan {
    policy: Policy,
    pub(crate) workers: Workers,
    pub(crate) decision: Decision,
}

/// Decides on the number of workers. Needs no client. Returns `None` while there is no Deployment.
pub(crate) fn decide(
    cr: &PulseIngest,
    observed: &Observed,
    sample: Option<&Sample>,
    changing: Changing,
    poll: Duration,
    memory: &mut ScalingMemory,
    now: Timestamp,
) -> Option<ScalingPlan> {
    let poll = SignedDuration::try_from(poll).unwrap_or(SignedDuration::MAX);
    let room = Use::of(cr, observed, now).map(|used| used.room_for_workers());
    let policy = Policy { connection_limit: room, ..Policy::new(&cr.spec, poll) };
    let deployment = observed.deployments.get(&Role::Worker)?;
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let pods = observed.pods.get(&Role::Worker).into_iter().flatten();
    let workers = Workers {
        replicas: u32::try_from(replicas).unwrap_or(0),
        pods: pods
            .filter(|pod| !pods::is_terminating(pod) && !pods::is_finished(pod))
            .map(|pod| worker_pod(pod))
            .collect(),
        rolling_out: changing.rolling_out,
        migrating: changing.migrating,
    };
    let history = memory.history.get_or_insert_with(|| History::new(now, workers.replicas));
    if let Some(sample) = sample.filter(|sample| Some(sample.at) != memory.seen) {
        history.observe(sample, workers.ready(), &policy);
        memory.seen = Some(sample.at);
        memory.in_flight = sample.in_flight.clone();
    }
    let decision = plan_workers(&policy, history, &workers, now);
    Some(ScalingPlan { policy, workers, decision })
}

fn worker_pod(pod: &Pod) -> WorkerPod {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let changed = conditions
        .filter(|condition| condition.type_ == "Ready")
        .find_map(|condition| condition.last_transition_time.as_ref().map(|time| time.0));
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let since = changed.or(created).unwrap_or(Timestamp::UNIX_EPOCH);
    WorkerPod {
        name: pod.name_any(),
        not_ready_since: (!pods::is_ready(pod)).then_some(since),
        crash_looping: pods::is_crashing(pod),
        deletion_cost: pod.annotations().get(DELETION_COST).and_then(|cost| cost.parse().ok()),
    }
}

/// Applies a decision. Returns the numbers of workers before and after if they differ.
///
/// # Errors
/// [`ApplyError`] if the Deployment cannot be read or scaled; the next reconcile decides again.
pub(crate) async fn apply_scaling(
    applier: &Applier<'_>,
    decided: &ScalingPlan,
    memory: &mut ScalingMemory,
    metrics: &OperatorMetrics,
    applied: &mut ApplyReport,
    now: Timestamp,
) -> Result<Option<(u32, u32)>, ApplyError> {
    let ScalingPlan { policy: _, workers, decision } = decided;
    let (from, to) = (workers.replicas, decision.replicas);
    let Some(history) = &mut memory.history else { return Ok(None) };
    if from == to {
        history.decided(now, from, decision);
        return Ok(None);
    }
    let name = crate::names::child(applier.cr, Role::Worker.component());
    applied.changes.push(PendingChange {
        object: format!("Deployment {name}"),
        action: "scale".into(),
        restarts: false,
    });
    // The recommendation counts for the stabilization windows, also if it is not applied now.
    history.decided(now, from, &Decision { replicas: from, ..decision.clone() });
    if applier.dry_run {
        return Ok(None);
    }
    let Some(live) = applier.live(&name).await? else { return Ok(None) };
    let replicas = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if u32::try_from(replicas).ok() != Some(from) {
        // The cache is stale: decide again once it has caught up.
        return Ok(None);
    }
    if to < from {
        let count = workers.pods.len().saturating_sub(to as usize);
        for change in choose_victims(&workers.pods, &memory.in_flight, count) {
            applier.set_deletion_cost(&change.pod, change.cost).await?;
        }
    }
    if !applier.scale(&live, to.cast_signed()).await? {
        return Ok(None);
    }
    history.decided(now, from, decision);
    metrics.decided(from.cast_signed(), to.cast_signed(), decision.reason.name());
    tracing::info!(object = crate::names::instance_id(applier.cr), from, to, why = decision.message, "workers scaled");
    Ok(Some((from, to)))
}

/// Returns the scaler's part of the status. `redis` is the name that is looked up to sample the queue.
pub(crate) fn report(
    cr: &PulseIngest,
    observed: &Observed,
    decided: Option<&ScalingPlan>,
    scaled: Option<(u32, u32)>,
    redis: Option<&str>,
    memory: &mut ScalingMemory,
    now: Timestamp,
) -> ScalingReport {
    let (Some(ScalingPlan { policy, workers, decision }), Some(history)) = (decided, &memory.history) else {
        return ScalingReport::default();
    };
    let is_starting = memory.seen.is_none() && history.reliable_for(now) <= policy.poll * STARTUP_POLLS;
    if let Some(previous) = previous_report(cr).filter(|_| is_starting && scaled.is_none()) {
        return previous;
    }
    let old = cr.status.as_ref().and_then(|status| status.autoscaling.clone()).unwrap_or_default();
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let fresh = memory.refreshed.is_none_or(|at| now.duration_since(at) >= REFRESH);
    if fresh || scaled.is_some() {
        memory.refreshed = Some(now);
    }
    let refresh = fresh || scaled.is_some();
    let record = |from| LastDecision { inputs: to_hundredths(&decision.inputs), ..decision.record(from, second) };
    let last_decision = match scaled {
        Some((from, _)) => {
            memory.scaled = Some(record(from));
            memory.scaled.clone()
        }
        None => {
            let last = newer(memory.scaled.clone(), old.last_decision);
            let changed = last.as_ref().is_none_or(|last| last.reason != decision.reason.name());
            let is_recorded = changed && refresh && decision.reason != ScalingReason::Fixed;
            if is_recorded { Some(record(workers.replicas)) } else { last }
        }
    };
    let scaled_at = memory.scaled.as_ref().map(|scaled| scaled.time.clone());
    let status = AutoscalingStatus {
        mode: Mode::of(cr).name().to_owned(),
        backlog: if refresh { decision.inputs.backlog.map(two_digits) } else { old.backlog },
        oldest_age_seconds: if refresh {
            decision.inputs.oldest_age_seconds.map(two_digits)
        } else {
            old.oldest_age_seconds
        },
        last_scale_time: scaled_at.or(old.last_scale_time),
        last_decision,
        next_wake_time: decision.next_wake.and_then(|at| Timestamp::from_second(at.as_second()).ok()).map(Time),
    };
    let states = [
        reachable(history, memory.seen.is_some(), redis),
        active(cr, policy, decision),
        limited(adjustable_limit(decision), rollout::rejection(observed, Role::Worker)),
        within_target(policy, decision),
    ];
    ScalingReport { status: Some(status), conditions: CONDITIONS.into_iter().zip(states).collect() }
}

/// Returns what the status reported before the operator started. Without a sample there is nothing newer.
fn previous_report(cr: &PulseIngest) -> Option<ScalingReport> {
    let status = cr.status.as_ref()?;
    let autoscaling = status.autoscaling.clone().filter(|before| before.mode == Mode::of(cr).name())?;
    let condition = |name| find(&status.conditions, name).map(|before| (name, ConditionState::of(before)));
    Some(ScalingReport {
        status: Some(autoscaling),
        conditions: CONDITIONS.into_iter().map(condition).collect::<Option<_>>()?,
    })
}

/// Returns the last change of this process, unless the status has recorded a newer decision.
fn newer(scaled: Option<LastDecision>, recorded: Option<LastDecision>) -> Option<LastDecision> {
    match (scaled, recorded) {
        (Some(scaled), Some(recorded)) if recorded.time.0 < scaled.time.0 => Some(scaled),
        (scaled, recorded) => recorded.or(scaled),
    }
}

/// Who sets the number of workers.
#[derive(Clone, Copy)]
enum Mode {
    /// `workers.replicas`.
    Fixed,
    /// This operator.
    Internal,
    /// Another autoscaler or a person.
    External,
}

impl Mode {
    fn of(cr: &PulseIngest) -> Self {
        match cr.spec.workers.autoscaling.as_ref().map(|scaling| scaling.mode) {
            None => Self::Fixed,
            Some(AutoscalingMode::Internal) => Self::Internal,
            Some(AutoscalingMode::External) => Self::External,
        }
    }

    /// Name in the status.
    const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "Fixed",
            Self::Internal => "Internal",
            Self::External => "External",
        }
    }
}

/// The message says what was looked up from where: a name means another address in another namespace.
fn reachable(history: &History, sampled: bool, redis: Option<&str>) -> ConditionState {
    let place =
        redis.map_or_else(|| "the URL has no host".to_owned(), |redis| format!("at {redis}, from the operator's pod"));
    match history.error() {
        Some(error) => {
            let message = format!("the queue cannot be read ({place}): {}", error.advice());
            ConditionState::new(False, error.reason(), message)
        }
        None if !sampled => ConditionState::new(Unknown, "NotSampled", "the queue has not been sampled yet"),
        None => ConditionState::new(True, "SampleOk", format!("the queue was sampled ({place})")),
    }
}

fn active(cr: &PulseIngest, policy: &Policy, decision: &Decision) -> ConditionState {
    if cr.spec.stopped {
        return ConditionState::new(False, "Stopped", "every role is scaled to zero, because stopped is true");
    }
    match Mode::of(cr) {
        Mode::External => {
            ConditionState::new(False, "External", "another autoscaler or a person sets workers.replicas")
        }
        Mode::Fixed => {
            ConditionState::new(False, "Fixed", "autoscaling is not set: workers.replicas is the number of workers")
        }
        Mode::Internal if decision.reason == ScalingReason::Unknown => ConditionState::new(
            False,
            "MetricsUnavailable",
            "the backlog is unknown, so workers are not removed: check QueueReachable and the scheduler",
        ),
        Mode::Internal if policy.paused == AutoscalingPause::All => {
            ConditionState::new(False, "Paused", "autoscaling.paused is All: set it to None to resume scaling")
        }
        Mode::Internal => ConditionState::new(True, "ValidMetricFound", "the number of workers follows the backlog"),
    }
}

/// Keeps limits that the user may want to change. The others are part of normal scaling.
fn adjustable_limit(decision: &Decision) -> Option<Limit> {
    decision.limited_by.filter(|limit| {
        matches!(
            limit,
            Limit::TooManyReplicas
                | Limit::TooFewReplicas
                | Limit::ScaleUpLimit
                | Limit::DatabaseConnectionBudget
                | Limit::WorkersNotReady
        )
    })
}

fn limited(limit: Option<Limit>, rejection: Option<String>) -> ConditionState {
    if let Some(rejection) = rejection {
        let message = format!(
            "pods of the workers are rejected: {rejection}; raise the limit that it names, or lower maxReplicas"
        );
        return ConditionState::new(True, "PodsRejected", message);
    }
    let Some(limit) = limit else {
        return ConditionState::new(False, "DesiredWithinRange", "the desired number of workers is within its limits");
    };
    let message = match limit {
        Limit::TooManyReplicas => {
            "the desired number of workers is more than maxReplicas: raise maxReplicas to allow it"
        }
        Limit::TooFewReplicas => {
            "the desired number of workers is less than minReplicas: lower minReplicas to allow it"
        }
        Limit::ScaleUpLimit => "behavior.scaleUp limits how many workers are added per period",
        Limit::DatabaseConnectionBudget => {
            "database.maxConnectionsTotal allows no more workers: raise it together with PostgreSQL's max_connections"
        }
        _ => "no workers are added, because existing ones do not become ready: check their pods",
    };
    ConditionState::new(True, limit.name(), message)
}

fn within_target(policy: &Policy, decision: &Decision) -> ConditionState {
    let limit = policy.target.max_age_seconds.unwrap_or(policy.target.drain_seconds);
    match decision.inputs.oldest_age_seconds {
        None => ConditionState::new(Unknown, "NoData", "the age of the oldest due task is unknown"),
        Some(age) if age > i64::from(limit) => {
            let message = format!(
                "a due task has waited for more than {limit} s: allow more workers or make the processor faster"
            );
            ConditionState::new(False, "TooOld", message)
        }
        Some(_) => ConditionState::new(True, "WithinTarget", format!("no due task has waited for more than {limit} s")),
    }
}

fn to_hundredths(inputs: &crate::crd::DecisionInputs) -> crate::crd::DecisionInputs {
    let hundredths = |value: f64| (value * 100.0).round() / 100.0;
    crate::crd::DecisionInputs {
        arrivals_per_second: inputs.arrivals_per_second.map(hundredths),
        throughput_per_worker: inputs.throughput_per_worker.map(hundredths),
        ..inputs.clone()
    }
}

/// Truncates `12345` to `12000`, so that small changes of a measurement do not cause a write.
fn two_digits(number: i64) -> i64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_decision_is_the_newer_of_memory_and_status() {
        let at = |second| LastDecision {
            time: Time(Timestamp::from_second(second).expect("valid")),
            from: 1,
            to: 2,
            reason: "BacklogTarget".into(),
            limited_by: None,
            inputs: crate::crd::DecisionInputs::default(),
            message: String::new(),
        };
        assert_eq!(newer(Some(at(2)), Some(at(1))), Some(at(2)));
        assert_eq!(newer(Some(at(2)), Some(at(3))), Some(at(3)));
        assert_eq!(newer(Some(at(2)), None), Some(at(2)));
        assert_eq!(newer(None, Some(at(1))), Some(at(1)));
    }
}
