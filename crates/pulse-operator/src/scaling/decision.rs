//! A decision on the number of workers, and its reasons.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::crd::{DecisionInputs, LastDecision};

/// How many workers there should be, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Workers from now on.
    pub replicas: u32,
    /// Workers that the reason and the bounds ask for, before windows and policies; [`super::History`] remembers it.
    pub recommended: u32,
    /// What won.
    pub reason: ScalingReason,
    /// What limited it last, if anything.
    pub limited_by: Option<Limit>,
    /// All of it in a sentence.
    pub message: String,
    /// What it was computed from.
    pub inputs: DecisionInputs,
    /// When to decide again though no sample arrives: a retry falls due, and nobody is there for it.
    pub next_wake: Option<Timestamp>,
}

impl Decision {
    /// As it is written into the status; `from` is the number of workers before.
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

/// What won.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalingReason {
    /// reason A: so many tasks of the backlog for each worker.
    BacklogTarget,
    /// reason B: what drains the backlog in time, at the throughput that was measured.
    DrainTimeTarget,
    /// reason C: a task gets too old.
    AgeTarget,
    /// Nothing has been owed for the whole idle time.
    Idle,
    /// There is work, or soon will be, and no worker.
    Wake,
    /// The backlog is not known.
    Unknown,
    /// The object says how many.
    Fixed,
}

impl ScalingReason {
    /// Its name in status, Events and metrics.
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

/// What limited a decision; the names of a HorizontalPodAutoscaler where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `maxReplicas`.
    TooManyReplicas,
    /// `minReplicas`.
    TooFewReplicas,
    /// `behavior.scaleUp`: so many per period.
    ScaleUpLimit,
    /// `behavior.scaleDown`: so many per period.
    ScaleDownLimit,
    /// A window: of `behavior`, or the one after a restart, an outage or a reset.
    Stabilized,
    /// `behavior.tolerancePercent`.
    Tolerance,
    /// `autoscaling.paused`.
    Paused,
    /// No fewer workers while pods are being replaced.
    RolloutInProgress,
    /// `database.maxConnectionsTotal`.
    DatabaseConnectionBudget,
    /// More workers would not start either.
    WorkersNotReady,
}

impl Limit {
    /// Its name in status, Events and metrics.
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
