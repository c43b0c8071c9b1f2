//! The `PulseIngest` resource: the spec (`spec.rs`, `datastores.rs`, `api.rs`, `auth.rs`, `tls.rs`, `console.rs`,
//! `user_limits.rs`, `workers.rs`, `schedule.rs`, `secret.rs`), the pods (`pod.rs`, `resources.rs`, `rollout.rs`, `grace.rs`,
//! with the schemas in `kubernetes.rs`) and the status (`status.rs`).
//!
//! Every default is part of the schema, so the API server stores it and a new version of the operator changes nothing.
//! Every string, list and number is bounded. Rules about two fields are CEL rules, so the API server rejects an invalid
//! object when it is applied.

mod api;
mod auth;
mod bounded;
mod compatibility;
mod console;
mod datastores;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
mod grace;
mod kubernetes;
pub mod names;
mod pod;
mod resources;
mod rollout;
mod scaling;
mod schedule;
mod schema_changes;
mod secret;
mod spec;
mod status;
mod tls;
mod user_limits;
mod workers;
pub mod yaml;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube_core::CustomResourceExt;

pub use api::{ApiAutoscaling, ApiAutoscalingMode, ApiLimits, ApiSpec};
pub use auth::{AuthSpec, JwksSpec};
pub use bounded::Quantities;
pub use compatibility::breaking_changes_of_crd;
pub use console::ConsoleSpec;
pub use datastores::{DatabaseSpec, RedisSpec};
pub use grace::{API_GRACE_SECONDS, WORKER_GRACE_SECONDS};
pub use kubernetes::Object;
pub use pod::{PodServiceAccount, PodTemplate};
pub use resources::Resources;
pub use rollout::{ProbeTimes, Probes, Rollout};
pub use schedule::ScheduleSpec;
pub use schema_changes::{BreakingChange, breaking_changes};
pub use secret::SecretKey;
pub use spec::{
    ImageSpec, MigrationPolicy, MigrationsSpec, PullPolicy, PullSecret, PulseIngest, PulseIngestSpec, RetentionSpec,
    RetrySpec, SchedulerSpec, TasksSpec,
};
pub use status::{
    AutoscalingStatus, DecisionInputs, LastDecision, LearnedStatus, MigrationState, MigrationsStatus, PendingChange,
    PlanSummary, PulseIngestStatus, Revision, RoleStatus, WorkersStatus,
};
pub use tls::{CertificateSecret, ServerTlsSpec};
pub use user_limits::UserLimitsSpec;
pub use workers::{Autoscaling, AutoscalingMode, AutoscalingPause, Behavior, ScalingRules, Target, WorkersSpec};

/// API group, and prefix of the operator's labels and annotations.
pub const GROUP: &str = "pulseboard.dev";

/// Returns the CustomResourceDefinition as it is installed.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = PulseIngest::crd();
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let Some(schema) = schema else { continue };
        strip_rust_formats(schema);
        if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
            // Tools that wait for an object treat one without a status as ready.
            status.default = Some(JSON(serde_json::json!({ "observedGeneration": -1 })));
            status.nullable = None;
        }
    }
    crd
}

/// Removes unsigned formats, which Kubernetes does not know: it warns about each one on installation. The minimum and
/// maximum of the field bound the value in their place.
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
    fn crd_has_only_formats_that_kubernetes_knows() {
        let text = crate::yaml::print(&crd()).expect("prints");
        let formats = text.lines().filter_map(|line| line.trim().strip_prefix("format: "));
        let unknown: Vec<&str> =
            formats.filter(|format| !["int32", "int64", "double", "date-time"].contains(format)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    /// Adds the fields below `schema` whose description does not end with their default.
    fn collect_wrong_defaults(path: &str, schema: &JSONSchemaProps, wrong: &mut Vec<String>) {
        for (name, field) in schema.properties.iter().flatten() {
            let path = format!("{path}.{name}");
            collect_wrong_defaults(&path, field, wrong);
            let stated = match &field.default {
                Some(JSON(serde_json::Value::String(text))) => format!("Defaults to `{text}`."),
                Some(JSON(value)) if !value.is_object() && !value.is_array() => format!("Defaults to {value}."),
                _ => continue,
            };
            let description = field.description.as_deref().unwrap_or_default().replace('\n', " ");
            if !description.ends_with(&stated) {
                wrong.push(format!("{path} must end with: {stated}"));
            }
        }
    }

    #[test]
    fn descriptions_of_the_spec_state_the_defaults() {
        let version = crd().spec.versions.remove(0);
        let schema = version.schema.and_then(|schema| schema.open_api_v3_schema).expect("a schema");
        let spec = &schema.properties.expect("properties")["spec"];
        let mut wrong = Vec::new();
        collect_wrong_defaults("spec", spec, &mut wrong);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn crd_only_adds_to_the_accepted_one() {
        let accepted = crate::yaml::read(include_str!("../../../manifests/crds.yaml")).expect("valid");
        let changes = breaking_changes_of_crd(&accepted, &serde_json::to_value(crd()).expect("valid"));
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert!(
            changes.is_empty(),
            "not only additions to manifests/crds.yaml:\n{}\nAdd a field beside the old one and keep that. If no release \
             has it, or a new API version replaces it: scripts/manifests --accept-crd",
            changes.join("\n")
        );
    }

    #[test]
    fn crd_stays_below_200_kb() {
        // As JSON, which the API server stores and `kubectl apply` puts into an annotation of at most 256 KiB.
        let text = serde_json::to_string(&crd()).expect("prints");
        assert!(text.len() < 200_000, "{} bytes", text.len());
    }
}
