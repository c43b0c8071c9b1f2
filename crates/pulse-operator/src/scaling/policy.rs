//! What a decision is made by: the object's rules, and the pods as they are.

use jiff::{SignedDuration, Timestamp};

use crate::crd::{Autoscaling, AutoscalingMode, AutoscalingPause, Behavior, PulseIngestSpec, Target};

/// How long a pod may take to become ready and still count as capacity to come.
pub const STARTUP_BUDGET: SignedDuration = SignedDuration::from_secs(120);
/// Connections that an API pod, a worker and the scheduler may open: their pool and the lanes on top.
const CONNECTIONS_PER_POD: u32 = 14;
/// A migration, a person and a backup may connect too.
const CONNECTIONS_RESERVED: u32 = 4;

/// The rules by which the number of workers follows the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The number, if nothing is to be decided: no Internal autoscaling, or stopped.
    pub fixed: Option<u32>,
    /// The fewest workers.
    pub min: u32,
    /// The most workers.
    pub max: u32,
    /// The most workers whose connections PostgreSQL can take; at least one, or nothing would ever be processed.
    pub connection_limit: Option<u32>,
    /// What the number is computed from.
    pub target: Target,
    /// How fast it may change.
    pub behavior: Behavior,
    /// How long nothing may be owed before the last worker goes.
    pub idle: SignedDuration,
    /// Which changes are held.
    pub paused: AutoscalingPause,
    /// Tasks that a worker processes at once.
    pub concurrency: u16,
    /// Between two samples; three of them without one, and the backlog is unknown.
    pub poll: SignedDuration,
}

impl Policy {
    /// The rules of an object that is sampled every `poll`.
    pub fn new(spec: &PulseIngestSpec, poll: SignedDuration) -> Self {
        let workers = &spec.workers;
        let internal = workers.autoscaling.as_ref().filter(|it| it.mode == AutoscalingMode::Internal);
        let (min, max) = internal.map_or((workers.replicas, workers.replicas), |it| (it.min_replicas, it.max_replicas));
        let fixed = match internal {
            _ if spec.stopped => Some(0),
            None => Some(workers.replicas),
            Some(_) => None,
        };
        Self {
            fixed,
            min,
            max,
            connection_limit: spec.database.max_connections_total.map(|total| workers_within(total, spec.api.replicas)),
            target: internal.and_then(|it| it.target.clone()).unwrap_or_default(),
            behavior: internal.and_then(|it| it.behavior.clone()).unwrap_or_default(),
            idle: seconds(internal.map_or(0, |Autoscaling { idle_seconds, .. }| *idle_seconds)),
            paused: internal.map(|it| it.paused).unwrap_or_default(),
            concurrency: workers.concurrency,
            poll,
        }
    }

    /// With how many workers a Deployment is created: the first start counts as active, so at least one.
    pub fn initial_replicas(&self) -> u32 {
        self.fixed.unwrap_or(self.min.max(1)).min(self.ceiling())
    }

    /// The most workers that the bounds allow.
    pub(super) fn ceiling(&self) -> u32 {
        let bound = if self.fixed.is_some() { u32::MAX } else { self.max };
        bound.min(self.connection_limit.unwrap_or(u32::MAX))
    }

    /// The fewest workers that the bounds allow.
    pub(super) fn floor(&self) -> u32 {
        self.min.min(self.ceiling())
    }
}

/// How many workers PostgreSQL has connections for, besides the API's pods and the scheduler. An API whose number
/// somebody else decides counts as one pod.
fn workers_within(connections: u32, api_replicas: Option<u32>) -> u32 {
    let others = CONNECTIONS_PER_POD * (api_replicas.unwrap_or(1) + 1) + CONNECTIONS_RESERVED;
    (connections.saturating_sub(others) / CONNECTIONS_PER_POD).max(1)
}

pub(super) fn seconds(seconds: u32) -> SignedDuration {
    SignedDuration::from_secs(i64::from(seconds))
}

/// A worker's pod that is not ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerPod {
    /// Its name.
    pub name: String,
    /// Since when it is not ready: the time of the condition, or of its creation. `None` if it is ready.
    pub not_ready_since: Option<Timestamp>,
    /// A container waits to be started again after it failed, or cannot be started at all.
    pub crash_looping: bool,
    /// `controller.kubernetes.io/pod-deletion-cost` as it is now.
    pub deletion_cost: Option<i32>,
}

/// The workers as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workers {
    /// What was last asked for: `spec.replicas` of the Deployment.
    pub replicas: u32,
    /// The pods that are not ending.
    pub pods: Vec<WorkerPod>,
    /// Pods are being replaced by ones of a new template.
    pub rolling_out: bool,
    /// A migration runs or is about to.
    pub migrating: bool,
}

impl Workers {
    /// Pods that can work now.
    pub fn ready(&self) -> u32 {
        count(self.pods.iter().filter(|pod| pod.not_ready_since.is_none()))
    }

    /// Pods that will soon be able to work: capacity to come.
    pub fn starting(&self, now: Timestamp) -> u32 {
        let young = |since: Timestamp| now.duration_since(since) < STARTUP_BUDGET;
        count(self.pods.iter().filter(|pod| !pod.crash_looping && pod.not_ready_since.is_some_and(young)))
    }

    /// Whether workers that were asked for may still come.
    pub fn coming(&self, now: Timestamp) -> bool {
        self.starting(now) > 0 || count(self.pods.iter()) < self.replicas
    }

    /// Whether so many pods fail to start that more would only fail too: at least half of them.
    pub fn failing(&self, now: Timestamp) -> bool {
        let pods = count(self.pods.iter());
        let troubled = pods - self.starting(now) - count(self.pods.iter().filter(|pod| healthy(pod)));
        troubled > 0 && troubled * 2 >= pods
    }
}

/// A pod that restarts over and over is ready now and then.
fn healthy(pod: &WorkerPod) -> bool {
    pod.not_ready_since.is_none() && !pod.crash_looping
}

fn count<'a>(pods: impl Iterator<Item = &'a WorkerPod>) -> u32 {
    u32::try_from(pods.count()).unwrap_or(u32::MAX)
}
