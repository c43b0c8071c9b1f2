//! The result of one scaling decision, as it is written into the status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::crd::{DecisionInputs, LastDecision};

/// The number of workers that is decided, with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Number of workers from now on.
    pub replicas: u32,
    /// Recommended number of workers: after tolerance and bounds, before stabilization and scaling policies.
    /// [`super::History`] keeps it for the stabilization windows.
    pub recommended: u32,
    /// The target or rule with the highest recommendation.
    pub reason: ScalingReason,
    /// The limit that applied last; `None` if the recommendation is followed.
    pub limited_by: Option<Limit>,
    /// The decision in one sentence, for the status and Events.
    pub message: String,
    /// The figures that it was computed from.
    pub inputs: DecisionInputs,
    /// Time to decide again even if no sample arrives: a retry falls due while there is no worker.
    pub next_wake: Option<Timestamp>,
}

impl Decision {
    /// The decision as it is written into the status. `from` is the previous number of workers.
    pub fn record(&self, from: u32, now: Timestamp) -> LastDecision {
        LastDecision {
            time: Time(now),
            from: from.cast_signed(),
            to: self.replicas.cast_signed(),
            reason: self.reason.name().to_owned(),
            limited_by: self.limited_by.map(|limit| limit.name().to_owned()),
            inputs: self.inputs.clone(),
            message: self.message.clone(),
        }
    }
}

/// The target or rule that decided the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalingReason {
    /// Backlog target: a number of tasks for each worker (`target.backlogPerWorker`).
    BacklogTarget,
    /// Drain-time target: drain the backlog within `target.drainSeconds`, at the measured throughput of a worker.
    DrainTimeTarget,
    /// Age target: the oldest task is near or past `target.maxAgeSeconds`.
    AgeTarget,
    /// There is nothing to do: no task was due for the whole idle time, or there is no worker and no task is due.
    Idle,
    /// There is no worker, and a task is due or soon will be.
    Wake,
    /// The backlog is unknown.
    Unknown,
    /// The spec sets the number.
    Fixed,
}

impl ScalingReason {
    /// The name in the status, in Events and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::BacklogTarget => "BacklogTarget",
            Self::DrainTimeTarget => "DrainTimeTarget",
            Self::AgeTarget => "AgeTarget",
            Self::Idle => "Idle",
            Self::Wake => "Wake",
            Self::Unknown => "Unknown",
            Self::Fixed => "Fixed",
        }
    }
}

/// The limit that a decision ran into. Uses the names of the HorizontalPodAutoscaler where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `maxReplicas`.
    TooManyReplicas,
    /// `minReplicas`.
    TooFewReplicas,
    /// The scaling policy of `behavior.scaleUp`.
    ScaleUpLimit,
    /// The scaling policy of `behavior.scaleDown`.
    ScaleDownLimit,
    /// A stabilization window of `behavior`, also the one that follows a restart, an outage or a reset of the totals.
    Stabilized,
    /// `behavior.tolerancePercent`.
    Tolerance,
    /// `autoscaling.paused`.
    Paused,
    /// A rollout is in progress: workers are not removed until it ends.
    RolloutInProgress,
    /// `database.maxConnectionsTotal`.
    DatabaseConnectionBudget,
    /// At least half of the worker pods fail to start, so more of them would not help.
    WorkersNotReady,
}

impl Limit {
    /// The name in the status, in Events and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooManyReplicas => "TooManyReplicas",
            Self::TooFewReplicas => "TooFewReplicas",
            Self::ScaleUpLimit => "ScaleUpLimit",
            Self::ScaleDownLimit => "ScaleDownLimit",
            Self::Stabilized => "Stabilized",
            Self::Tolerance => "Tolerance",
            Self::Paused => "Paused",
            Self::RolloutInProgress => "RolloutInProgress",
            Self::DatabaseConnectionBudget => "DatabaseConnectionBudget",
            Self::WorkersNotReady => "WorkersNotReady",
        }
    }
}
