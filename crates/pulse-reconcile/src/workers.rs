//! Decides on the number of workers: gathers what `pulse-scaling` decides from, and reports its decision. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pulse_crd::names::Role;
use pulse_crd::{AutoscalingMode, AutoscalingStatus, LastDecision, LearnedStatus, PulseIngest};
use pulse_scaling::{Decision, Limit, Memory, Pause, Policy, ScalingReason, ScheduleError, Workers};

use crate::condition::ConditionStatus::{False, True, Unknown};
use crate::condition::{ConditionState, ConditionType, find};
use crate::connections::Use;
use crate::observed::Observed;
use crate::pods;
use crate::rollout;
use crate::scaling::{self, Candidate, CostChange, Rules, Sample, SampleError, choose_victims};
use crate::status::ScalingReport;

/// Minimum and maximum age of the measurements in the status. Each refresh is a write.
const REFRESH: SignedDuration = SignedDuration::from_secs(30);
/// Poll intervals to wait for the first sample after a start.
const STARTUP_POLLS: i32 = 3;
/// Types of the conditions that describe scaling.
const CONDITIONS: [ConditionType; 4] = [
    ConditionType::QueueReachable,
    ConditionType::ScalingActive,
    ConditionType::ScalingLimited,
    ConditionType::BacklogWithinTarget,
];

/// State of an object's workers between reconciles.
#[derive(Clone, Default)]
pub struct ScalingMemory {
    /// What the rules remember. What they learned is restored from the status.
    rules: Option<Memory>,
    /// Time of the first decision.
    started: Option<Timestamp>,
    /// Time of the newest sample, and its error.
    seen: Option<Timestamp>,
    error: Option<SampleError>,
    in_flight: BTreeMap<String, u64>,
    refreshed: Option<Timestamp>,
    /// Last change of the number of workers. The status that records it may not have been written.
    scaled: Option<LastDecision>,
}

/// What changes the workers besides their number.
#[derive(Clone, Copy)]
pub struct Changing {
    /// A rollout replaces worker pods.
    pub rolling_out: bool,
    /// A migration runs or is pending.
    pub migrating: bool,
}

/// A decision that has not been applied yet.
pub struct ScalingPlan {
    policy: Policy,
    /// A schedule that cannot be used.
    invalid: Option<ScheduleError>,
    /// Number of workers before the decision.
    pub from: u32,
    /// What the rules decided.
    pub decision: Decision,
    /// Pods whose deletion cost is changed before workers are removed.
    pub victims: Vec<CostChange>,
}

/// Decides on the number of workers. Needs no client. `None` while there is no Deployment. The memory is that for [`report`].
pub fn decide(
    cr: &PulseIngest,
    observed: &Observed,
    sample: Option<&Sample>,
    changing: Changing,
    poll: Duration,
    mut memory: ScalingMemory,
    now: Timestamp,
) -> (Option<ScalingPlan>, ScalingMemory) {
    let poll = SignedDuration::try_from(poll).unwrap_or(SignedDuration::MAX);
    let Rules { policy, invalid } = Rules::new(&cr.spec, poll);
    let Some(deployment) = observed.deployments.get(&Role::Worker) else { return (None, memory) };
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let pods = observed.pods.get(&Role::Worker).into_iter().flatten();
    let pods = pods.filter(|pod| !pods::is_terminating(pod) && !pods::is_finished(pod));
    let (candidates, pods): (Vec<Candidate>, _) =
        pods.map(|pod| (scaling::candidate(pod), scaling::worker_pod(pod))).unzip();
    let from = u32::try_from(replicas).unwrap_or(0);
    let used = Use::of(cr, observed, now);
    let policy = Policy {
        connection_limit: used.as_ref().map(Use::room_for_workers),
        connection_floor: used.filter(|used| used.holds_removal(Role::Worker)).map_or(0, |_| from),
        ..policy
    };
    let workers = Workers { replicas: from, pods, rolling_out: changing.rolling_out, migrating: changing.migrating };
    if let Some(sample) = sample.filter(|sample| Some(sample.queue.at) != memory.seen) {
        (memory.seen, memory.error) = (Some(sample.queue.at), sample.error);
        memory.in_flight = sample.in_flight.clone();
    }
    memory.started.get_or_insert(now);
    let observed = pulse_scaling::Observed { sample: sample.map(|sample| sample.queue.clone()), workers };
    let before = memory.rules.take().unwrap_or_else(|| restored(cr));
    let (decision, after) = pulse_scaling::decide(&policy, before, &observed, now);
    memory.rules = Some(after);
    let count = candidates.len().saturating_sub(decision.replicas as usize);
    let removes = decision.replicas < from;
    let victims = if removes { choose_victims(&candidates, &memory.in_flight, count) } else { Vec::new() };
    (Some(ScalingPlan { policy, invalid, from, decision, victims }), memory)
}

/// The memory after a restart of the operator.
fn restored(cr: &PulseIngest) -> Memory {
    let learned = cr.status.as_ref().and_then(|status| status.autoscaling.as_ref()?.learned.as_ref());
    learned.map(|learned| Memory::restored(scaling::remembered(learned))).unwrap_or_default()
}

/// Returns the scaler's part of the status, and the memory for the next reconcile. `redis` is the name that is looked up to sample the queue.
pub fn report(
    cr: &PulseIngest,
    observed: &Observed,
    decided: Option<&ScalingPlan>,
    scaled: Option<(u32, u32)>,
    redis: Option<&str>,
    mut memory: ScalingMemory,
    now: Timestamp,
) -> (ScalingReport, ScalingMemory) {
    let Some(ScalingPlan { policy, invalid, from, decision, .. }) = decided else {
        return (ScalingReport::default(), memory);
    };
    let is_recent = |started: Timestamp| now.duration_since(started) <= policy.poll * STARTUP_POLLS;
    let is_starting = memory.seen.is_none() && memory.started.is_none_or(is_recent);
    if let Some(previous) = previous_report(cr).filter(|_| is_starting && scaled.is_none()) {
        return (previous, memory);
    }
    let old = cr.status.as_ref().and_then(|status| status.autoscaling.clone()).unwrap_or_default();
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let refresh = scaled.is_some() || memory.refreshed.is_none_or(|at| now.duration_since(at) >= REFRESH);
    if refresh {
        memory.refreshed = Some(now);
    }
    let last_decision = match scaled {
        Some((from, _)) => {
            memory.scaled = Some(scaling::record(decision, from, second));
            memory.scaled.clone()
        }
        None => {
            let last = newer(memory.scaled.clone(), old.last_decision);
            let changed = last.as_ref().is_none_or(|last| last.reason != decision.reason.name());
            let is_recorded = changed && refresh && decision.reason != ScalingReason::Fixed;
            if is_recorded { Some(scaling::record(decision, *from, second)) } else { last }
        }
    };
    let (backlog, age) = scaling::known(&decision.inputs);
    let scaled_at = memory.scaled.as_ref().map(|scaled| scaled.time.clone());
    let status = AutoscalingStatus {
        mode: Mode::of(cr).name().to_owned(),
        backlog: if refresh { backlog.map(scaling::two_digits) } else { old.backlog },
        oldest_age_seconds: if refresh { age.map(scaling::two_digits) } else { old.oldest_age_seconds },
        learned: if refresh { learned(cr, &memory, old.learned.as_ref()) } else { old.learned },
        last_scale_time: scaled_at.or(old.last_scale_time),
        last_decision,
        next_wake_time: decision.next_wake.and_then(|at| Timestamp::from_second(at.as_second()).ok()).map(Time),
    };
    let states = [
        reachable(memory.error, memory.seen.is_some(), redis),
        active(cr, policy, invalid.as_ref(), decision),
        limited(adjustable_limit(decision), rollout::rejection(observed, Role::Worker)),
        within_target(policy, age),
    ];
    let report = ScalingReport { status: Some(status), conditions: CONDITIONS.into_iter().zip(states).collect() };
    (report, memory)
}

/// What the next decisions need after a restart of the operator.
fn learned(cr: &PulseIngest, memory: &ScalingMemory, before: Option<&LearnedStatus>) -> Option<LearnedStatus> {
    let rules = memory.rules.as_ref().filter(|_| matches!(Mode::of(cr), Mode::Internal))?;
    Some(scaling::learned(rules.learned(), before)).filter(|learned| *learned != LearnedStatus::default())
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
fn reachable(error: Option<SampleError>, sampled: bool, redis: Option<&str>) -> ConditionState {
    let place =
        redis.map_or_else(|| "the URL has no host".to_owned(), |redis| format!("at {redis}, from the operator's pod"));
    match error {
        Some(error) => {
            let message = format!("the queue cannot be read ({place}): {}", error.advice());
            ConditionState::new(False, error.reason(), message)
        }
        None if !sampled => ConditionState::new(Unknown, "NotSampled", "the queue has not been sampled yet"),
        None => ConditionState::new(True, "SampleOk", format!("the queue was sampled ({place})")),
    }
}

fn active(cr: &PulseIngest, policy: &Policy, invalid: Option<&ScheduleError>, decision: &Decision) -> ConditionState {
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
            "the backlog is unknown, so workers are not removed, and at least autoscaling.fallback of them run: check \
             QueueReachable and the scheduler",
        ),
        Mode::Internal if policy.paused == Pause::All => {
            ConditionState::new(False, "Paused", "autoscaling.paused is All: set it to None to resume scaling")
        }
        Mode::Internal => match invalid {
            Some(invalid) => {
                let message = format!("autoscaling.schedules: {invalid}; the other rules apply");
                ConditionState::new(False, "InvalidSchedule", message)
            }
            None => ConditionState::new(True, "ValidMetricFound", "the number of workers follows the backlog"),
        },
    }
}

/// Keeps limits that the user may want to change. The others are part of normal scaling.
fn adjustable_limit(decision: &Decision) -> Option<Limit> {
    decision.limited_by.filter(|limit| {
        matches!(
            limit,
            Limit::TooManyReplicas
                | Limit::TooFewReplicas
                | Limit::Schedule
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
        Limit::Schedule => {
            "the desired number of workers is less than that of a schedule: lower its minReplicas to allow it"
        }
        Limit::ScaleUpLimit => "behavior.scaleUp limits how many workers are added per period",
        Limit::DatabaseConnectionBudget => {
            "database.maxConnectionsTotal limits the number of workers: for more, raise it together with PostgreSQL's \
             max_connections; a removal waits until the rollout in progress has ended"
        }
        _ => "no workers are added, because existing ones do not become ready: check their pods",
    };
    ConditionState::new(True, limit.name(), message)
}

fn within_target(policy: &Policy, age: Option<i64>) -> ConditionState {
    let limit = policy.target.max_age_seconds.unwrap_or(policy.target.drain_seconds);
    match age {
        None => ConditionState::new(Unknown, "NoData", "the age of the oldest waiting task is unknown"),
        Some(age) if age > i64::from(limit) => {
            let message =
                format!("a task has waited for more than {limit} s: allow more workers or make the processor faster");
            ConditionState::new(False, "TooOld", message)
        }
        Some(_) => ConditionState::new(True, "WithinTarget", format!("no task has waited for more than {limit} s")),
    }
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
            inputs: pulse_crd::DecisionInputs::default(),
            message: String::new(),
        };
        assert_eq!(newer(Some(at(2)), Some(at(1))), Some(at(2)));
        assert_eq!(newer(Some(at(2)), Some(at(3))), Some(at(3)));
        assert_eq!(newer(Some(at(2)), None), Some(at(2)));
        assert_eq!(newer(None, Some(at(1))), Some(at(1)));
    }
}
