//! The result of one scaling decision.

use jiff::Timestamp;

/// The number of workers that is decided, with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Number of workers from now on.
    pub replicas: u32,
    /// Recommended number of workers: after tolerance and bounds, before stabilization and scaling policies.
    pub recommended: u32,
    /// The target or rule that asked for it.
    pub reason: ScalingReason,
    /// The limit that applied last; `None` if the recommendation is followed.
    pub limited_by: Option<Limit>,
    /// The decision in one sentence, for the status and Events.
    pub message: String,
    /// The figures that it was computed from.
    pub inputs: Inputs,
    /// Time to decide again even if no sample arrives: a retry falls due while there is no worker, or the minimum of a
    /// schedule changes.
    pub next_wake: Option<Timestamp>,
}

/// Measurements that a decision is based on. An unknown one is absent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Inputs {
    /// Number of due tasks that no worker has yet.
    pub waiting: Option<u64>,
    /// Number of tasks that are delivered to a worker and not settled.
    pub in_flight: Option<u64>,
    /// Age of the oldest waiting task, in seconds.
    pub oldest_age_seconds: Option<u64>,
    /// Tasks that become due per second.
    pub arrivals_per_second: Option<f64>,
    /// Mean time of an attempt, in seconds.
    pub attempt_seconds: Option<f64>,
}

/// The target or rule that decided the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalingReason {
    /// Backlog target: a number of waiting tasks for each worker (`target.backlogPerWorker`).
    BacklogTarget,
    /// Drain-time target: start the waiting tasks within `target.drainSeconds`, at the measured time of an attempt.
    DrainTimeTarget,
    /// Age target: the same, in the time that is left until the oldest one reaches `target.maxAgeSeconds`.
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
    /// A schedule's minimum.
    Schedule,
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
            Self::Schedule => "Schedule",
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
