//! What the API server serves of `PulseIngest`, compared with the types of this version.
//!
//! It can be that of an older version: then the API server refuses a status with a field that it does not know, as a
//! whole. So the operator leaves out what the served schema does not have, reports `CRDOutdated`, and reconciles as
//! before. Pure.

use pulse_crd::{BreakingChange, PulseIngestStatus, breaking_changes, crd};
use serde_json::Value;

use crate::condition::ConditionStatus::True;
use crate::condition::{ConditionState, ConditionType};
use crate::fit::fit;

/// The command that updates the CRD to this version.
pub const UPDATE_CRD: &str = "pulse crd | kubectl apply --server-side --force-conflicts -f -";
/// Number of differences that a message names.
const NAMED: usize = 5;

/// What the API server serves, compared with the types of this version. The default is an unknown schema, which is
/// treated as the same.
#[derive(Debug, Default)]
pub struct Served {
    /// Address of the OpenAPI document, which has a hash of its contents.
    pub url: String,
    /// Schema of the status.
    status: Value,
    /// What the served schema lacks or refuses, compared with that of this version.
    lacking: Vec<BreakingChange>,
}

impl Served {
    /// Compares the schema `served` at `url`.
    pub fn new(url: String, served: &Value) -> Self {
        let lacking = breaking_changes(&own_schema(), served);
        Self { url, status: served["properties"]["status"].clone(), lacking }
    }

    /// What is missing, as a sentence; `None` if nothing is.
    pub fn outdated(&self) -> Option<String> {
        let named: Vec<String> = self.lacking.iter().take(NAMED).map(ToString::to_string).collect();
        let more = self.lacking.len().saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        (!named.is_empty()).then(|| {
            format!(
                "the CustomResourceDefinition is older than the operator {} ({}{more}): run `{UPDATE_CRD}` with this version",
                env!("CARGO_PKG_VERSION"),
                named.join("; ")
            )
        })
    }

    /// The condition `CRDOutdated`, which is only present while it is true.
    pub fn condition(&self) -> Option<(ConditionType, ConditionState)> {
        Some((ConditionType::CrdOutdated, ConditionState::new(True, "FieldsMissing", self.outdated()?)))
    }

    /// The status as it can be written: without what the served schema refuses.
    pub fn fit(&self, status: &PulseIngestStatus) -> Value {
        let value = serde_json::to_value(status).unwrap_or_default();
        if self.lacking.is_empty() { value } else { fit(value, &self.status).unwrap_or_default() }
    }

    /// The status as it can be read after it was written.
    pub fn as_stored(&self, status: PulseIngestStatus) -> PulseIngestStatus {
        if self.lacking.is_empty() {
            return status;
        }
        serde_json::from_value(self.fit(&status)).unwrap_or(status)
    }
}

/// The schema of this version.
fn own_schema() -> Value {
    let version = crd().spec.versions.into_iter().next();
    let schema = version.and_then(|version| version.schema?.open_api_v3_schema);
    serde_json::to_value(schema).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn own_schema_is_not_outdated() {
        let served = Served::new(String::new(), &own_schema());
        assert_eq!(served.outdated(), None);
    }

    #[test]
    fn outdated_crd_is_reported_with_its_fields_and_the_command() {
        let mut older = own_schema();
        let fields = older.pointer_mut("/properties/status/properties").and_then(Value::as_object_mut);
        fields.expect("fields").remove("pendingChanges").expect("exists");
        let served = Served::new(String::new(), &older);
        let message = served.outdated().expect("outdated");
        assert!(message.contains("status.pendingChanges: the field is removed"), "{message}");
        assert!(message.contains(UPDATE_CRD), "{message}");
        let change = json!({ "object": "Deployment main-api", "action": "update", "restarts": true });
        let status: PulseIngestStatus =
            serde_json::from_value(json!({ "observedGeneration": 3, "pendingChanges": [change] })).expect("valid");
        let fitted = served.fit(&status);
        assert_eq!((&fitted["observedGeneration"], &fitted["pendingChanges"]), (&json!(3), &Value::Null));
        assert_eq!(served.as_stored(status).pending_changes, []);
    }
}
