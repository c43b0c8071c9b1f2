//! The workers, and how their number follows the queue.
#![expect(unreachable_pub, reason = "the derive of CEL rules makes types of its own, inside functions")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pod::{PodTemplate, Resources};

/// What processes events.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkersSpec {
    /// How many, where Internal autoscaling does not decide. To have none, use `stopped`.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: u32,
    /// How their number follows the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How many tasks a worker processes at once.
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: u16,
    /// How long running tasks may go on after a worker was told to stop, in seconds.
    #[schemars(range(min = 0, max = 3600))]
    pub drain_timeout_seconds: u32,
    /// What each pod may use.
    pub resources: Resources,
    /// What else its pods have.
    pub pod_template: PodTemplate,
}

impl Default for WorkersSpec {
    fn default() -> Self {
        Self {
            replicas: 1,
            autoscaling: None,
            concurrency: 16,
            drain_timeout_seconds: 60,
            resources: Resources::default(),
            pod_template: PodTemplate::default(),
        }
    }
}

/// How the number of workers follows the queue.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.minReplicas <= self.maxReplicas", "minReplicas is at most maxReplicas"),
    validation = (
        "self.mode == 'Internal' || (!has(self.target) && !has(self.behavior))",
        "External forbids target and behavior: whoever scales decides"
    )
)]
pub struct Autoscaling {
    /// Who decides: this operator, or somebody else through the scale subresource.
    #[serde(default)]
    pub mode: AutoscalingMode,
    /// The fewest workers; 0 lets an idle system have none.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: u32,
    /// The most workers.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u32,
    /// What the number of workers is computed from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// How fast it may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behavior: Option<Behavior>,
    /// How long nothing may be owed before the last worker goes, in seconds. Matters only if `minReplicas` is 0.
    #[serde(default = "idle_seconds")]
    #[schemars(range(min = 10, max = 86_400))]
    pub idle_seconds: u32,
    /// Which changes are held.
    #[serde(default)]
    pub paused: AutoscalingPause,
}

/// Who decides the number of workers.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AutoscalingMode {
    /// This operator, from the depth of the queue.
    #[default]
    Internal,
    /// A HorizontalPodAutoscaler, KEDA or a person, through the scale subresource: `workers.replicas`.
    External,
}

/// Which changes of the number of workers are held.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub enum AutoscalingPause {
    #[default]
    None,
    All,
    ScaleUp,
    ScaleDown,
}

/// What the number of workers is computed from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Target {
    /// Target backlog per worker.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub backlog_per_worker: u32,
    /// law B, once the throughput of a worker is known: the backlog is worked off within this many seconds.
    #[schemars(range(min = 1, max = 86_400))]
    pub drain_seconds: u32,
    /// law C: no task should get older than this, in seconds. Not used if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_age_seconds: Option<u32>,
}

impl Default for Target {
    fn default() -> Self {
        Self { backlog_per_worker: 100, drain_seconds: 60, max_age_seconds: None }
    }
}

/// How fast the number of workers may change.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Behavior {
    /// A computed number this close to the present one changes nothing, in percent. Not applied from zero.
    #[schemars(range(min = 0, max = 100))]
    pub tolerance_percent: u32,
    /// Upwards.
    #[schemars(default = "scale_up_rules")]
    pub scale_up: ScalingRules,
    /// Downwards.
    #[schemars(default = "scale_down_rules")]
    pub scale_down: ScalingRules,
}

impl Default for Behavior {
    fn default() -> Self {
        Self { tolerance_percent: 10, scale_up: scale_up_rules(), scale_down: scale_down_rules() }
    }
}

/// How fast the number of workers may change in one direction: by the larger of `percent` and `workers` per period.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ScalingRules {
    /// The most cautious number of this many past seconds is used.
    #[schemars(range(min = 0, max = 3600))]
    pub stabilization_window_seconds: u32,
    /// Of the number at the start of a period, in percent.
    #[schemars(range(min = 1, max = 1000))]
    pub percent: u32,
    /// Workers.
    #[schemars(range(min = 1, max = 1000))]
    pub workers: u32,
    /// The length of a period, in seconds.
    #[schemars(range(min = 1, max = 1800))]
    pub period_seconds: u32,
}

/// As a HorizontalPodAutoscaler: no window, doubled or 4 more in 15 s.
pub(crate) fn scale_up_rules() -> ScalingRules {
    ScalingRules { stabilization_window_seconds: 0, percent: 100, workers: 4, period_seconds: 15 }
}

/// Half of them, or 2, in a minute, after 2 minutes of less work.
pub(crate) fn scale_down_rules() -> ScalingRules {
    ScalingRules { stabilization_window_seconds: 120, percent: 50, workers: 2, period_seconds: 60 }
}

fn one() -> u32 {
    1
}

fn idle_seconds() -> u32 {
    300
}
