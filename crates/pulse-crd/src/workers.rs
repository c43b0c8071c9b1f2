//! The workers and their autoscaling.
#![expect(unreachable_pub, reason = "the derive for CEL rules generates types inside functions")]

use kube_derive::KubeSchema;
use pulse_core::defaults;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::grace;
use super::pod::PodTemplate;
use super::resources::Resources;
use super::rollout::{Probes, Rollout};
use super::schedule::ScheduleSpec;

/// Workers that process tasks.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = grace::worker_rule()))]
pub struct WorkersSpec {
    /// Replicas is the number of workers without autoscaling, and in the autoscaling mode `External`, in which it may
    /// be 0. Leave it out of manifests in that mode: the other autoscaler sets it through the scale subresource. It is
    /// ignored in the mode `Internal`, and cannot change then, except to its default. Set
    /// `stopped` to run no workers. Defaults to 1.
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: u32,
    /// Autoscaling of the workers. If not set, `replicas` is the number of workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Maximum number of tasks that each worker processes at the same time. Defaults to 16.
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: u16,
    /// Time that a terminating worker waits for its running tasks to end, in seconds. Tasks that have not ended are
    /// released without using up an attempt. The termination grace period of the pods is at least 15 s longer. If not
    /// set, 15 s less than `podTemplate.terminationGracePeriodSeconds`, or 60.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_timeout_seconds: Option<u32>,
    /// Maximum number of pooled connections to PostgreSQL of each worker, which opens up to 4 others as well. Processors
    /// that use the pool need one for each of their queries at the same time. Defaults to 2.
    #[schemars(range(min = 1, max = 500))]
    pub database_pool_size: u32,
    /// CPU and memory requests and limits of the container of each worker pod.
    pub resources: Resources,
    /// Times of the probes.
    pub probes: Probes,
    /// Replacement of pods by newer ones.
    pub rollout: Rollout,
    /// Additional settings of the worker pods, in the format of a pod.
    pub pod_template: PodTemplate,
}

impl Default for WorkersSpec {
    fn default() -> Self {
        Self {
            replicas: 1,
            autoscaling: None,
            concurrency: defaults::CONCURRENCY,
            database_pool_size: defaults::SMALL_POOL,
            drain_timeout_seconds: None,
            resources: Resources::default(),
            probes: Probes::default(),
            rollout: Rollout::default(),
            pod_template: PodTemplate::default(),
        }
    }
}

/// Autoscaling of the workers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "self.mode == 'External' || has(self.maxReplicas)",
        "maxReplicas must be set in the mode Internal: it bounds what the operator may start"
    ),
    validation = (
        "!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
        "minReplicas must be less than or equal to maxReplicas"
    ),
    validation = (
        "!has(self.maxReplicas) || !has(self.fallback) || self.fallback <= self.maxReplicas",
        "fallback must be less than or equal to maxReplicas"
    ),
    validation = (
        "!has(self.maxReplicas) || !has(self.schedules) \
         || self.schedules.all(schedule, schedule.minReplicas <= self.maxReplicas)",
        "schedules: minReplicas must be less than or equal to maxReplicas"
    ),
    validation = (
        "self.mode == 'Internal' || (!has(self.maxReplicas) && !has(self.target) && !has(self.behavior) \
         && !has(self.fallback) && (!has(self.schedules) || size(self.schedules) == 0))",
        "maxReplicas, fallback, schedules, target and behavior must not be set in the mode External: set them in the other \
         autoscaler"
    )
)]
pub struct Autoscaling {
    /// Mode of autoscaling. With `Internal`, the operator computes the number of workers from the backlog. With
    /// `External`, a HorizontalPodAutoscaler, KEDA or a person sets `workers.replicas` through the scale subresource.
    /// Defaults to `Internal`.
    #[serde(default)]
    pub mode: AutoscalingMode,
    /// Minimum number of workers. With 0, an idle system runs no worker until there is work again. Only used in the mode
    /// `Internal`. Defaults to 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: u32,
    /// Maximum number of workers. Required in the mode `Internal`. Must not be set in the mode `External`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: Option<u32>,
    /// Minimum number of workers while the queue cannot be read: after three samples, which are taken every 10 s, without
    /// the depth from Redis or without current figures from the scheduler. If not set, the number of workers is kept. Must
    /// not be set in the mode `External`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub fallback: Option<u32>,
    /// Times of the day, of the week or of the year with another minimum number of workers. Must not be set in the mode
    /// `External`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub schedules: Vec<ScheduleSpec>,
    /// Targets from which the number of workers is computed. Must not be set in the mode `External`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Tolerance and rate of changes of the number of workers. Must not be set in the mode `External`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Behavior>,
    /// Time without work after which the last worker is removed, in seconds. Only used in the mode `Internal` if
    /// `minReplicas` is 0. Defaults to 60.
    #[serde(default = "idle_seconds")]
    #[schemars(range(min = 10, max = 86_400))]
    pub idle_seconds: u32,
    /// Paused suspends changes of the number of workers: `All` of them, only `ScaleUp`, only `ScaleDown`, or `None`.
    /// Only used in the mode `Internal`. Defaults to `None`.
    #[serde(default)]
    pub paused: AutoscalingPause,
}

/// Mode of autoscaling.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AutoscalingMode {
    /// The operator computes the number of workers from the backlog.
    #[default]
    Internal,
    /// A HorizontalPodAutoscaler, KEDA or a person sets `workers.replicas` through the scale subresource.
    External,
}

/// Changes of the number of workers that are suspended.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "named after the suspended changes")]
pub enum AutoscalingPause {
    #[default]
    None,
    All,
    ScaleUp,
    ScaleDown,
}

/// Targets from which the number of workers is computed.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    /// Waiting tasks per worker. Only used until the time of an attempt is known. Defaults to 100.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub backlog_per_worker: u32,
    /// Time within which the waiting tasks are to be started, in seconds, at the measured time of an attempt and rate of
    /// arrivals. Defaults to 60.
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: u32,
    /// Maximum age of the oldest waiting task, in seconds. As a task gets near it, the waiting tasks are drained in the time
    /// that is left. A running task has no age. If not set, the age of tasks does not add workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_age_seconds: Option<u32>,
}

impl Default for Target {
    fn default() -> Self {
        let pulse_scaling::Target { backlog_per_worker, drain_seconds, max_age_seconds } = <_>::default();
        Self { backlog_per_worker, drain_seconds, max_age_seconds }
    }
}

/// Tolerance and rate of changes of the number of workers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Behavior {
    /// Relative difference between the computed and the current number of workers that causes no change, in percent.
    /// Not applied when scaling from zero. Defaults to 10.
    #[schemars(range(min = 0, max = 100))]
    pub tolerance_percent: u32,
    /// Scaling up. By default, the number of workers grows by at most 300% or 10 every 15 s, whichever is more, without a
    /// stabilization window.
    #[schemars(default = "scale_up_rules")]
    pub scale_up: ScalingRules,
    /// Scaling down. By default, at most half of the workers or 2 are removed every 60 s, whichever is more, after a
    /// stabilization window of 120 s.
    #[schemars(default = "scale_down_rules")]
    pub scale_down: ScalingRules,
}

impl Default for Behavior {
    fn default() -> Self {
        let pulse_scaling::Behavior { tolerance_percent, scale_up, scale_down } = <_>::default();
        Self { tolerance_percent, scale_up: scale_up.into(), scale_down: scale_down.into() }
    }
}

/// Rate of changes in one direction. A period allows the larger of `percent` and `workers`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScalingRules {
    /// Stabilization window, in seconds. Of the numbers computed within it, the lowest is used for scaling up and the
    /// highest for scaling down. 0 uses the newest number.
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: u32,
    /// Maximum change per period, in percent of the number of workers at the start of the period.
    #[schemars(range(min = 1, max = 1000))]
    pub percent: u32,
    /// Maximum change per period, in workers.
    #[schemars(range(min = 1, max = 1000))]
    pub workers: u32,
    /// Length of a period, in seconds.
    #[schemars(range(min = 1, max = 1800))]
    pub period_seconds: u32,
}

impl From<pulse_scaling::ScalingRules> for ScalingRules {
    fn from(rules: pulse_scaling::ScalingRules) -> Self {
        let pulse_scaling::ScalingRules { stabilization_window_seconds, percent, workers, period_seconds } = rules;
        Self { stabilization_window_seconds, percent, workers, period_seconds }
    }
}

fn scale_up_rules() -> ScalingRules {
    Behavior::default().scale_up
}

fn scale_down_rules() -> ScalingRules {
    Behavior::default().scale_down
}

fn one() -> u32 {
    1
}

fn idle_seconds() -> u32 {
    u32::try_from(pulse_scaling::Policy::default().idle.as_secs()).unwrap_or(u32::MAX)
}
