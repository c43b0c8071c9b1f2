//! `PulseIngest`: what a platform team writes (`spec.rs`, `workers.rs`, `pod.rs`), and what it reads (`status.rs`).
//!
//! Every default is in the schema, so that the API server stores it and a new operator changes nothing. Everything is
//! bounded. A rule that needs two fields is CEL, so that a bad object is refused when it is applied.

mod bounded;
mod pod;
mod spec;
mod status;
mod workers;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

pub use bounded::Quantities;
pub use pod::{EnvVar, PodTemplate, Resources, Toleration, TopologySpread, Unsatisfiable};
pub use spec::{
    ApiLimits, ApiSpec, AuthSpec, DatabaseSpec, ImageSpec, MigrationPolicy, MigrationsSpec, PullPolicy, PullSecret,
    PulseIngest, PulseIngestSpec, RedisSpec, RetrySpec, SchedulerSpec, SecretKey, TasksSpec,
};
pub use status::{
    AutoscalingStatus, DecisionInputs, LastDecision, MigrationState, MigrationsStatus, PendingChange, PlanSummary,
    PulseIngestStatus, Revision, RoleStatus, WorkersStatus,
};
pub use workers::{Autoscaling, AutoscalingMode, AutoscalingPause, Behavior, ScalingRules, Target, WorkersSpec};

/// The group of the API, and the prefix of our labels and annotations.
pub const GROUP: &str = "pulseboard.dev";

/// The definition as it is installed.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = PulseIngest::crd();
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let Some(schema) = schema else { continue };
        strip_rust_formats(schema);
        if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            // Without a status, tools that wait take a new object for a finished one.
            status.default = Some(JSON(serde_json::json!({ "observedGeneration": -1 })));
            status.nullable = None;
        }
    }
    crd
}

/// Kubernetes has no unsigned formats, and warns whoever installs the definition of each. Bounds say the same.
fn strip_rust_formats(schema: &mut JSONSchemaProps) {
    if schema.format.as_ref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(strip_rust_formats);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        strip_rust_formats(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        strip_rust_formats(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_one_that_kubernetes_knows() {
        let text = crate::yaml::print(&crd()).expect("prints");
        let formats = text.lines().filter_map(|line| line.trim().strip_prefix("format: "));
        let unknown: Vec<&str> =
            formats.filter(|format| !["int32", "int64", "double", "date-time"].contains(format)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn the_definition_is_small() {
        let text = crate::yaml::print(&crd()).expect("prints");
        assert!(text.len() < 200_000, "{} bytes", text.len());
    }
}
