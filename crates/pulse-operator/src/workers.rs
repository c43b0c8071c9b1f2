//! The workers of one object: what the laws of `scaling` are told, and what becomes of their decision.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::apply::{Applied, Applier, ApplyError};
use crate::crd::{AutoscalingMode, AutoscalingPause, AutoscalingStatus, LastDecision, PendingChange, PulseIngest};
use crate::metrics::OperatorMetrics;
use crate::names::{DELETION_COST, Role};
use crate::observe::Observed;
use crate::pods;
use crate::scaling::{
    Decision, History, Limit, Policy, Sample, ScalingReason, WorkerPod, Workers, choose_victims, plan_workers,
};
use crate::status::{ConditionState, ScalingReport, find, is_rolling};

/// Live numbers in the status are this old at most, and at least: each is a write.
const REFRESH: SignedDuration = SignedDuration::from_secs(30);
/// A start has so many intervals for its first sample.
const PATIENCE: i32 = 3;
/// What is said about scaling.
const CONDITIONS: [&str; 4] = ["QueueReachable", "ScalingActive", "ScalingLimited", "BacklogWithinTarget"];

/// What is remembered of an object's workers.
#[derive(Default)]
pub(crate) struct ScalingMemory {
    history: Option<History>,
    /// The newest sample that was looked at.
    seen: Option<Timestamp>,
    in_flight: BTreeMap<String, u64>,
    refreshed: Option<Timestamp>,
    /// The last change of the number: the status that said so may not have been written.
    scaled: Option<LastDecision>,
}

/// A decision, before it is carried out.
pub(crate) struct Decided {
    policy: Policy,
    pub(crate) workers: Workers,
    pub(crate) decision: Decision,
}

/// Decides. No client needed.
pub(crate) fn decide(
    cr: &PulseIngest,
    observed: &Observed,
    sample: Option<&Sample>,
    migrating: bool,
    poll: Duration,
    remembered: &mut ScalingMemory,
    now: Timestamp,
) -> Option<Decided> {
    let poll = SignedDuration::try_from(poll).unwrap_or(SignedDuration::MAX);
    let policy = Policy::new(&cr.spec, poll);
    let deployment = observed.deployments.get(&Role::Worker)?;
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let pods = observed.pods.get(&Role::Worker).into_iter().flatten();
    let workers = Workers {
        replicas: u32::try_from(replicas).unwrap_or(0),
        pods: pods.filter(|pod| !pods::is_terminating(pod) && !pods::is_finished(pod)).map(|pod| worker(pod)).collect(),
        rolling_out: is_rolling(observed, Role::Worker),
        migrating,
    };
    let history = remembered.history.get_or_insert_with(|| History::new(now, workers.replicas));
    if let Some(sample) = sample.filter(|sample| Some(sample.at) != remembered.seen) {
        history.observe(sample, workers.ready(), &policy);
        remembered.seen = Some(sample.at);
        remembered.in_flight = sample.in_flight.clone();
    }
    let decision = plan_workers(&policy, history, &workers, now);
    Some(Decided { policy, workers, decision })
}

fn worker(pod: &Pod) -> WorkerPod {
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

/// Carries a decision out; returns the numbers before and after if they differ.
pub(crate) async fn apply_scaling(
    applier: &Applier<'_>,
    decided: &Decided,
    remembered: &mut ScalingMemory,
    metrics: &OperatorMetrics,
    applied: &mut Applied,
    now: Timestamp,
) -> Result<Option<(u32, u32)>, ApplyError> {
    let Decided { policy: _, workers, decision } = decided;
    let (from, to) = (workers.replicas, decision.replicas);
    let Some(history) = &mut remembered.history else { return Ok(None) };
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
    // What was recommended counts for the windows, whether it can be done now or not.
    history.decided(now, from, &Decision { replicas: from, ..decision.clone() });
    if applier.dry_run {
        return Ok(None);
    }
    let Some(live) = applier.live(&name).await? else { return Ok(None) };
    let replicas = live.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    if u32::try_from(replicas).ok() != Some(from) {
        // The cache is late: decide again once it has caught up.
        return Ok(None);
    }
    if to < from {
        let count = workers.pods.len().saturating_sub(to as usize);
        for change in choose_victims(&workers.pods, &remembered.in_flight, count) {
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

/// What the status says about it.
pub(crate) fn report(
    cr: &PulseIngest,
    decided: Option<&Decided>,
    scaled: Option<(u32, u32)>,
    remembered: &mut ScalingMemory,
    now: Timestamp,
) -> ScalingReport {
    let (Some(Decided { policy, workers, decision }), Some(history)) = (decided, &remembered.history) else {
        return ScalingReport::default();
    };
    let is_starting = remembered.seen.is_none() && history.sure_for(now) <= policy.poll * PATIENCE;
    if let Some(told) = previous_decision(cr).filter(|_| is_starting && scaled.is_none()) {
        return told;
    }
    let old = cr.status.as_ref().and_then(|status| status.autoscaling.clone()).unwrap_or_default();
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let fresh = remembered.refreshed.is_none_or(|at| now.duration_since(at) >= REFRESH);
    if fresh || scaled.is_some() {
        remembered.refreshed = Some(now);
    }
    let refresh = fresh || scaled.is_some();
    let record = |from| LastDecision { inputs: rounded(&decision.inputs), ..decision.record(from, second) };
    let last_decision = match scaled {
        Some((from, _)) => {
            remembered.scaled = Some(record(from));
            remembered.scaled.clone()
        }
        None => {
            let last = newer(remembered.scaled.clone(), old.last_decision);
            let changed = last.as_ref().is_none_or(|last| last.reason != decision.reason.name());
            let told = changed && refresh && decision.reason != ScalingReason::Fixed;
            if told { Some(record(workers.replicas)) } else { last }
        }
    };
    let scaled_at = remembered.scaled.as_ref().map(|scaled| scaled.time.clone());
    let status = AutoscalingStatus {
        mode: mode(cr).to_owned(),
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
        reachable(history, remembered.seen.is_some()),
        active(cr, policy, decision),
        limited(observed_limit(decision)),
        within_target(policy, decision),
    ];
    ScalingReport { status: Some(status), conditions: CONDITIONS.into_iter().zip(states).collect() }
}

/// What was said before we started: with no sample yet, there is nothing to add.
fn previous_decision(cr: &PulseIngest) -> Option<ScalingReport> {
    let status = cr.status.as_ref()?;
    let autoscaling = status.autoscaling.clone().filter(|before| before.mode == mode(cr))?;
    let condition = |name| find(&status.conditions, name).map(|before| (name, ConditionState::of(before)));
    Some(ScalingReport {
        status: Some(autoscaling),
        conditions: CONDITIONS.into_iter().map(condition).collect::<Option<_>>()?,
    })
}

/// Our last change of the number, unless the status says something newer.
fn newer(scaled: Option<LastDecision>, told: Option<LastDecision>) -> Option<LastDecision> {
    match (scaled, told) {
        (Some(scaled), Some(told)) if told.time.0 < scaled.time.0 => Some(scaled),
        (scaled, told) => told.or(scaled),
    }
}

fn mode(cr: &PulseIngest) -> &'static str {
    match &cr.spec.workers.autoscaling {
        None => "Fixed",
        Some(scaling) if scaling.mode == AutoscalingMode::External => "External",
        Some(_) => "Internal",
    }
}

fn reachable(history: &History, sampled: bool) -> ConditionState {
    match history.error() {
        Some(error) => {
            ConditionState::new("False", error.reason(), "the queue cannot be read; what is unknown is not zero")
        }
        None if !sampled => ConditionState::new("Unknown", "NotSampled", "no sample was taken yet"),
        None => ConditionState::new("True", "SampleOk", "the queue answers"),
    }
}

fn active(cr: &PulseIngest, policy: &Policy, decision: &Decision) -> ConditionState {
    if cr.spec.stopped {
        return ConditionState::new("False", "Stopped", "every role is at zero, as the spec says");
    }
    match mode(cr) {
        "External" => ConditionState::new("False", "External", "somebody else scales, by workers.replicas"),
        "Fixed" => ConditionState::new("False", "Fixed", "workers.replicas says how many"),
        _ if decision.reason == ScalingReason::Unknown => ConditionState::new(
            "False",
            "MetricsUnavailable",
            "the backlog is not known: the number of workers is held, and never lowered",
        ),
        _ if policy.paused == AutoscalingPause::All => {
            ConditionState::new("False", "Paused", "autoscaling.paused is All")
        }
        _ => ConditionState::new("True", "ValidMetricFound", "the number of workers follows the queue"),
    }
}

/// Limits that somebody may want to change; the others are how scaling is meant to work.
fn observed_limit(decision: &Decision) -> Option<Limit> {
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

fn limited(limit: Option<Limit>) -> ConditionState {
    let Some(limit) = limit else {
        return ConditionState::new("False", "DesiredWithinRange", "the computed number is within its bounds");
    };
    let message = match limit {
        Limit::TooManyReplicas => "more workers are wanted than maxReplicas",
        Limit::TooFewReplicas => "fewer workers are wanted than minReplicas",
        Limit::ScaleUpLimit => "behavior.scaleUp slows the way up",
        Limit::DatabaseConnectionBudget => "database.maxConnectionsTotal allows no more workers",
        _ => "workers do not become ready: more of them would not either",
    };
    ConditionState::new("True", limit.name(), message)
}

fn within_target(policy: &Policy, decision: &Decision) -> ConditionState {
    let limit = policy.target.max_age_seconds.unwrap_or(policy.target.drain_seconds);
    match decision.inputs.oldest_age_seconds {
        None => ConditionState::new("Unknown", "NoData", "the age of the oldest task is not known"),
        Some(age) if age > i64::from(limit) => {
            ConditionState::new("False", "TooOld", format!("the oldest task has waited for more than {limit} s"))
        }
        Some(_) => ConditionState::new("True", "WithinTarget", format!("no task has waited for more than {limit} s")),
    }
}

fn rounded(inputs: &crate::crd::DecisionInputs) -> crate::crd::DecisionInputs {
    let hundredths = |value: f64| (value * 100.0).round() / 100.0;
    crate::crd::DecisionInputs {
        arrivals_per_second: inputs.arrivals_per_second.map(hundredths),
        throughput_per_worker: inputs.throughput_per_worker.map(hundredths),
        ..inputs.clone()
    }
}

/// `12345` is `12000`: a number that wanders a little is no news.
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
    fn a_change_that_the_status_does_not_say_yet_is_still_told() {
        let at = |second| LastDecision {
            time: Time(Timestamp::from_second(second).expect("valid")),
            from: 1,
            to: 2,
            reason: "Backlog".into(),
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
