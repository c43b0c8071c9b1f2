//! How the pods of a role are replaced, and when they count as started, live and ready.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Replacement of pods by newer ones. At least one of both fields must be more than zero.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(string(self.maxUnavailable) in ['0', '0%'] && string(self.maxSurge) in ['0', '0%'])",
    "message": "maxUnavailable and maxSurge must not both be zero, because no pod could be replaced",
}]))]
pub struct Rollout {
    /// Maximum number of pods that may be unavailable during a rollout, as a number or in percent. Defaults to 0.
    #[schemars(schema_with = "number_or_percent")]
    pub max_unavailable: IntOrString,
    /// Maximum number of pods that may run in addition during a rollout, as a number or in percent. Defaults to `25%`.
    #[schemars(schema_with = "number_or_percent")]
    pub max_surge: IntOrString,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { max_unavailable: IntOrString::Int(0), max_surge: IntOrString::String("25%".into()) }
    }
}

/// Times of the probes. Paths and ports are those of the role.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Probes {
    /// Startup probe. The other probes begin when it has succeeded once. If not set, the pods have no startup probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<ProbeTimes>,
    /// Liveness probe. A container whose probe fails is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<ProbeTimes>,
    /// Readiness probe. A pod whose probe fails gets no requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ProbeTimes>,
}

/// Times of a probe.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeTimes {
    /// Time after the start of the container before the first probe, in seconds. If not set, there is no delay.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub initial_delay_seconds: Option<u16>,
    /// Time between two probes, in seconds. If not set, 10 for liveness, and 2 for startup and readiness.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub period_seconds: Option<u16>,
    /// Time after which a probe without an answer has failed, in seconds. If not set, 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 300))]
    pub timeout_seconds: Option<u16>,
    /// Number of failures in a row after which the probe counts as failed. If not set, 30 for startup, 3 for liveness and
    /// 2 for readiness.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: Option<u16>,
}

fn number_or_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "minimum": 0,
        "maximum": 1000,
        "pattern": "^([0-9]|[1-9][0-9]|100)%$",
        "maxLength": 4,
    })
}
