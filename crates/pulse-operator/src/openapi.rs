//! Reads the schema of `PulseIngest` that the API server serves, from its OpenAPI document, which every account may read.

use std::sync::Arc;

use http::Request;
use kube::{Client, Resource};
use pulse_crd::PulseIngest;
use pulse_reconcile::intervals::Intervals;
use pulse_reconcile::served::Served;
use serde_json::Value;
use tokio::sync::watch;

use crate::caches::Caches;
use crate::client::api_message;
use crate::instances::reference;
use crate::jitter::jittered;
use crate::metrics::OperatorMetrics;
use crate::watches::Trigger;

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
