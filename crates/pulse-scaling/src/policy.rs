//! The rules of one object: targets, bounds, and how fast the number may change.

use jiff::SignedDuration;

use crate::schedule::Schedule;

/// The scaling rules of one object.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Fixed number of workers; no rule changes it.
    pub fixed: Option<u32>,
    /// Minimum number of workers.
    pub min: u32,
    /// Maximum number of workers.
    pub max: u32,
    /// Times of the day with another minimum.
    pub schedules: Vec<Schedule>,
    /// Minimum number of workers while the backlog is unknown. `None` keeps the present number.
    pub fallback: Option<u32>,
    /// Maximum number of workers that the database has connections for; at least 1, so that a worker always runs.
    pub connection_limit: Option<u32>,
    /// Number of workers of which none is removed yet, because those removed before still have connections.
    pub connection_floor: u32,
    /// Targets that the number is computed from.
    pub target: Target,
    /// Tolerance, stabilization windows and scaling policies.
    pub behavior: Behavior,
    /// Time without work before the last worker is removed.
    pub idle: SignedDuration,
    /// Changes that are paused.
    pub paused: Pause,
    /// Maximum number of tasks that a worker processes at once.
    pub concurrency: u16,
    /// Time between two samples. The backlog is unknown after three of them without a sample.
    pub poll: SignedDuration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            fixed: None,
            min: 1,
            max: 1,
            schedules: Vec::new(),
            fallback: None,
            connection_limit: None,
            connection_floor: 0,
            target: Target::default(),
            behavior: Behavior::default(),
            idle: SignedDuration::from_secs(60),
            paused: Pause::None,
            concurrency: 16,
            poll: SignedDuration::from_secs(10),
        }
    }
}

impl Policy {
    /// Initial replicas of a new Deployment. At least 1 with autoscaling, because a new object counts as active.
    pub fn initial_replicas(&self) -> u32 {
        self.fixed.unwrap_or(self.min.max(1)).min(self.ceiling())
    }

    /// The highest number of workers within the bounds.
    pub(crate) fn ceiling(&self) -> u32 {
        let bound = if self.fixed.is_some() { u32::MAX } else { self.max };
        bound.min(self.connection_limit.unwrap_or(u32::MAX))
    }
}

/// Changes of the number of workers that are suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pause {
    /// None of them.
    #[default]
    None,
    /// All of them.
    All,
    /// Only those that add workers.
    ScaleUp,
    /// Only those that remove workers.
    ScaleDown,
}

/// Targets from which the number of workers is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Waiting tasks per worker. Only used until the time of an attempt is known.
    pub backlog_per_worker: u32,
    /// Time within which the waiting tasks are to be started, in seconds.
    pub drain_seconds: u32,
    /// Maximum age of the oldest waiting task, in seconds. As a task gets near it, the waiting tasks are drained in the
    /// time that is left.
    pub max_age_seconds: Option<u32>,
}

impl Default for Target {
    fn default() -> Self {
        Self { backlog_per_worker: 100, drain_seconds: 60, max_age_seconds: None }
    }
}

/// Tolerance and rate of changes of the number of workers.
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// Relative difference between the computed and the current number of workers that causes no change, in percent.
    pub tolerance_percent: u32,
    /// Scaling up.
    pub scale_up: ScalingRules,
    /// Scaling down.
    pub scale_down: ScalingRules,
}

impl Default for Behavior {
    fn default() -> Self {
        Self {
            tolerance_percent: 10,
            scale_up: ScalingRules { stabilization_window_seconds: 0, percent: 300, workers: 10, period_seconds: 15 },
            scale_down: ScalingRules { stabilization_window_seconds: 120, percent: 50, workers: 2, period_seconds: 60 },
        }
    }
}

/// Rate of changes in one direction. A period allows the larger of `percent` and `workers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalingRules {
    /// Stabilization window, in seconds. Of the numbers computed within it, the lowest is used for scaling up and the
    /// highest for scaling down. 0 uses the newest number.
    pub stabilization_window_seconds: u32,
    /// Maximum change per period, in percent of the number of workers at the start of the period.
    pub percent: u32,
    /// Maximum change per period, in workers.
    pub workers: u32,
    /// Length of a period, in seconds.
    pub period_seconds: u32,
}

pub(crate) fn seconds(seconds: u32) -> SignedDuration {
    SignedDuration::from_secs(i64::from(seconds))
}
