//! The schema of `PulseIngest` that the API server serves, from its OpenAPI document, which every account may read.
//!
//! It can be that of an older version: then the API server refuses a status with a field that it does not know, as a
//! whole. So the operator leaves out what the served schema does not have, reports `CRDOutdated`, and reconciles as before.

use std::sync::Arc;

use http::Request;
use kube::{Client, Resource};
use serde_json::Value;
use tokio::sync::watch;

use crate::client::api_message;
use crate::condition::ConditionState;
use crate::condition::ConditionStatus::True;
use crate::crd::{BreakingChange, PulseIngest, PulseIngestStatus, breaking_changes, crd};
use crate::fit::fit;
use crate::instances::reference;
use crate::intervals::Intervals;
use crate::intervals::jittered;
use crate::metrics::OperatorMetrics;
use crate::observe::Caches;
use crate::watches::Trigger;

/// The command that updates the CRD to this version.
pub(crate) const UPDATE_CRD: &str = "pulse crd | kubectl apply --server-side --force-conflicts -f -";
/// Number of differences that a message names.
const NAMED: usize = 5;

/// What the API server serves, compared with the types of this version. The default is an unknown schema, which is
/// treated as the same.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Address of the document, which has a hash of its contents.
    url: String,
    /// Schema of the status.
    status: Value,
    /// What the served schema lacks or refuses, compared with that of this version.
    lacking: Vec<BreakingChange>,
}

impl Served {
    fn new(url: String, served: &Value) -> Self {
        let lacking = breaking_changes(&own_schema(), served);
        Self { url, status: served["properties"]["status"].clone(), lacking }
    }

    /// What is missing, as a sentence; `None` if nothing is.
    pub(crate) fn outdated(&self) -> Option<String> {
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
    pub(crate) fn condition(&self) -> Option<(&'static str, ConditionState)> {
        Some(("CRDOutdated", ConditionState::new(True, "FieldsMissing", self.outdated()?)))
    }

    /// The status as it can be written: without what the served schema refuses.
    pub(crate) fn fit(&self, status: &PulseIngestStatus) -> Value {
        let value = serde_json::to_value(status).unwrap_or_default();
        if self.lacking.is_empty() { value } else { fit(value, &self.status).unwrap_or_default() }
    }

    /// The status as it can be read after it was written.
    pub(crate) fn as_stored(&self, status: PulseIngestStatus) -> PulseIngestStatus {
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

/// Reads what is served. `None` if it is still the document of `known`.
///
/// # Errors
/// The API server does not answer, or does not serve `PulseIngest`.
pub(crate) async fn read(client: &Client, known: &Served) -> Result<Option<Served>, ReadError> {
    let group = format!("apis/{}", PulseIngest::api_version(&()));
    let index = get(client, "/openapi/v3").await?;
    let url = index["paths"][&group]["serverRelativeURL"].as_str().ok_or(ReadError::NotServed)?;
    if url == known.url {
        return Ok(None);
    }
    let document = get(client, url).await?;
    let schemas = document["components"]["schemas"].as_object();
    let is_instance = |schema: &&Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"] == PulseIngest::kind(&()).as_ref()))
    };
    let schema = schemas.and_then(|schemas| schemas.values().find(is_instance)).ok_or(ReadError::NotServed)?;
    Ok(Some(Served::new(url.to_owned(), schema)))
}

/// Why the served schema is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The request failed.
    #[error("{}", api_message(.0))]
    Api(#[from] kube::Error),
    /// The address is not valid.
    #[error("the address of the OpenAPI document is not valid: {0}")]
    Address(#[from] http::Error),
    /// There is no CRD, or it was installed only now.
    #[error("the API server does not serve PulseIngest")]
    NotServed,
}

async fn get(client: &Client, path: &str) -> Result<Value, ReadError> {
    Ok(client.request(Request::get(path).body(Vec::new())?).await?)
}

/// Reads what is served at every interval until the reconciles end, and triggers one of each object when it changes.
pub(crate) struct Reader {
    pub(crate) client: Client,
    pub(crate) intervals: Intervals,
    pub(crate) metrics: OperatorMetrics,
    pub(crate) caches: Caches,
    pub(crate) trigger: Trigger,
}

impl Reader {
    /// Reads once, and then in the background.
    pub(crate) async fn start(self) -> watch::Receiver<Arc<Served>> {
        let (sender, receiver) = watch::channel(Arc::default());
        let mut problem = String::new();
        self.refresh(&sender, &mut problem).await;
        tokio::spawn(async move {
            loop {
                // The document of a CRD that was installed only now follows within seconds.
                let is_known = problem.is_empty();
                let interval = if is_known { self.intervals.secrets } else { self.intervals.missing };
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(jittered(interval)) => {}
                }
                if self.refresh(&sender, &mut problem).await {
                    for object in self.caches.objects.store().state() {
                        // Fails only at shutdown, when the receiver is dropped.
                        let _ = self.trigger.send(reference(&object));
                    }
                }
            }
        });
        receiver
    }

    /// Returns true if what is served has changed. `problem` is the last error; it is logged once.
    async fn refresh(&self, sender: &watch::Sender<Arc<Served>>, problem: &mut String) -> bool {
        let known = sender.borrow().clone();
        let read = read(&self.client, &known).await;
        let error = read.as_ref().err().map(ToString::to_string).unwrap_or_default();
        if !error.is_empty() && *problem != error {
            tracing::warn!(
                error,
                "cannot read the OpenAPI document, which shows whether the CRD is of an older version"
            );
        }
        *problem = error;
        let Ok(Some(served)) = read else { return false };
        let outdated = served.outdated();
        self.metrics.crd_outdated.set(outdated.is_some().into());
        if let Some(message) = outdated {
            tracing::error!("{message}");
        }
        sender.send_replace(Arc::new(served));
        true
    }
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
