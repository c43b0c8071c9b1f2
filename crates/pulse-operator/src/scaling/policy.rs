//! Inputs of a decision: the scaling rules of the spec, and the observed worker pods.

use jiff::{SignedDuration, Timestamp};

use crate::connections;
use crate::crd::{Autoscaling, AutoscalingMode, AutoscalingPause, Behavior, PulseIngestSpec, Target};

/// Time that a pod may take to become ready. Until then it counts as starting, later as failing.
pub const STARTUP_BUDGET: SignedDuration = SignedDuration::from_secs(120);

/// The scaling rules of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Fixed number of workers: without autoscaling of mode `Internal`, or 0 while stopped.
    pub fixed: Option<u32>,
    /// Minimum number of workers.
    pub min: u32,
    /// Maximum number of workers.
    pub max: u32,
    /// Maximum number of workers within `database.maxConnectionsTotal`; at least 1, so that a worker always runs.
    pub connection_limit: Option<u32>,
    /// Targets that the number is computed from.
    pub target: Target,
    /// Tolerance, stabilization windows and scaling policies.
    pub behavior: Behavior,
    /// Time without work before the last worker is removed.
    pub idle: SignedDuration,
    /// Changes that are paused.
    pub paused: AutoscalingPause,
    /// Maximum number of tasks that a worker processes at once.
    pub concurrency: u16,
    /// Time between two samples. The backlog is unknown after three of them without a sample.
    pub poll: SignedDuration,
}

impl Policy {
    /// Reads the rules from a spec; `poll` is the time between two samples.
    pub fn new(spec: &PulseIngestSpec, poll: SignedDuration) -> Self {
        let workers = &spec.workers;
        let internal = workers.autoscaling.as_ref().filter(|it| it.mode == AutoscalingMode::Internal);
        let (min, max) = internal.map_or((workers.replicas, workers.replicas), |it| {
            // The schema requires a maximum in this mode.
            (it.min_replicas, it.max_replicas.unwrap_or(it.min_replicas))
        });
        let fixed = match internal {
            _ if spec.stopped => Some(0),
            None => Some(workers.replicas),
            Some(_) => None,
        };
        Self {
            fixed,
            min,
            max,
            connection_limit: connections::max_workers(spec, spec.api.replicas),
            target: internal.and_then(|it| it.target.clone()).unwrap_or_default(),
            behavior: internal.and_then(|it| it.behavior.clone()).unwrap_or_default(),
            idle: seconds(internal.map_or(0, |Autoscaling { idle_seconds, .. }| *idle_seconds)),
            paused: internal.map(|it| it.paused).unwrap_or_default(),
            concurrency: workers.concurrency,
            poll,
        }
    }

    /// Initial replicas of a new Deployment. At least 1 with autoscaling, because a new object counts as active.
    pub fn initial_replicas(&self) -> u32 {
        self.fixed.unwrap_or(self.min.max(1)).min(self.ceiling())
    }

    /// The highest number of workers within the bounds.
    pub(super) fn ceiling(&self) -> u32 {
        let bound = if self.fixed.is_some() { u32::MAX } else { self.max };
        bound.min(self.connection_limit.unwrap_or(u32::MAX))
    }

    /// The lowest number of workers within the bounds.
    pub(super) fn floor(&self) -> u32 {
        self.min.min(self.ceiling())
    }
}

pub(super) fn seconds(seconds: u32) -> SignedDuration {
    SignedDuration::from_secs(i64::from(seconds))
}

/// A worker pod that is not terminating.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerPod {
    /// Name of the pod.
    pub name: String,
    /// Time when the pod became not ready, by its `Ready` condition, or when it was created. `None` if it is ready.
    pub not_ready_since: Option<Timestamp>,
    /// A container is in `CrashLoopBackOff`.
    pub crash_looping: bool,
    /// Current value of the annotation `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: Option<i32>,
}

/// The observed workers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workers {
    /// `spec.replicas` of the Deployment.
    pub replicas: u32,
    /// The pods that are not terminating.
    pub pods: Vec<WorkerPod>,
    /// A rollout replaces pods.
    pub rolling_out: bool,
    /// A migration runs or is pending.
    pub migrating: bool,
}

impl Workers {
    /// Number of ready pods.
    pub fn ready(&self) -> u32 {
        count(self.pods.iter().filter(|pod| pod.not_ready_since.is_none()))
    }

    /// Number of pods that are starting: not ready for less than [`STARTUP_BUDGET`], and not crash looping.
    pub fn starting(&self, now: Timestamp) -> u32 {
        let is_recent = |since: Timestamp| now.duration_since(since) < STARTUP_BUDGET;
        count(self.pods.iter().filter(|pod| !pod.crash_looping && pod.not_ready_since.is_some_and(is_recent)))
    }

    /// Whether pods are starting or not created yet.
    pub fn has_pending_pods(&self, now: Timestamp) -> bool {
        self.starting(now) > 0 || count(self.pods.iter()) < self.replicas
    }

    /// Whether at least half of the pods fail to start, so that more of them would fail as well.
    pub fn failing(&self, now: Timestamp) -> bool {
        let pods = count(self.pods.iter());
        let failing = pods - self.starting(now) - count(self.pods.iter().filter(|pod| is_healthy(pod)));
        failing > 0 && failing * 2 >= pods
    }
}

/// A crash-looping pod may be ready for a moment and still does not count as healthy.
fn is_healthy(pod: &WorkerPod) -> bool {
    pod.not_ready_since.is_none() && !pod.crash_looping
}

fn count<'a>(pods: impl Iterator<Item = &'a WorkerPod>) -> u32 {
    u32::try_from(pods.count()).unwrap_or(u32::MAX)
}
