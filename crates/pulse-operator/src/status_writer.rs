//! Writes the status of an object, and claims the object in it.

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use pulse_crd::names;
use pulse_crd::{PulseIngest, PulseIngestStatus};
use pulse_reconcile::error::ReconcileError;
use pulse_reconcile::served::Served;
use serde_json::json;

use crate::client::api_message;

/// The field manager of the status.
const STATUS_MANAGER: &str = "pulse-operator-status";

/// A status as it was written, with its resource version.
pub(crate) type Written = (u64, PulseIngestStatus);

/// Records that the operator with this identity reconciles `cr`, unless the object has changed meanwhile.
///
/// # Errors
/// [`ReconcileError`]; the next reconcile tries again.
pub(crate) async fn claim(client: &Client, cr: &PulseIngest, identity: &str) -> Result<Written, ReconcileError> {
    // The resource version makes this fail for all but one of several operators.
    let patch = json!({
        "metadata": { "resourceVersion": cr.resource_version() },
        "status": { "operator": identity },
    });
    let params = PatchParams { field_manager: Some(STATUS_MANAGER.into()), ..PatchParams::default() };
    match api(client, cr).patch_status(&cr.name_any(), &params, &Patch::Merge(&patch)).await {
        Ok(written) => Ok((version_of(&written), written.status.unwrap_or_default())),
        Err(kube::Error::Api(answer)) if answer.is_conflict() => Err(ReconcileError::ClaimConflict),
        // The object was deleted in the meantime.
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Err(ReconcileError::ClaimConflict),
        Err(error) => Err(ReconcileError::StatusNotWritten(api_message(&error))),
    }
}

/// Writes the status if it has changed. Returns it if it was written.
///
/// # Errors
/// [`ReconcileError::StatusNotWritten`] if the API server refuses it.
pub(crate) async fn write(
    client: &Client,
    cr: &PulseIngest,
    served: &Served,
    status: PulseIngestStatus,
) -> Result<Option<Written>, ReconcileError> {
    if cr.status.as_ref() == Some(&status) {
        return Ok(None);
    }
    let patch = json!({
        "apiVersion": PulseIngest::api_version(&()),
        "kind": PulseIngest::kind(&()),
        // The UID keeps the status off a new object of the same name.
        "metadata": { "uid": cr.uid() },
        "status": served.fit(&status),
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    match api(client, cr).patch_status(&cr.name_any(), &params, &Patch::Apply(&patch)).await {
        Ok(written) => Ok(Some((version_of(&written), status))),
        // The object was deleted in the meantime.
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(None),
        Err(error) => Err(ReconcileError::StatusNotWritten(api_message(&error))),
    }
}

/// The resource version as a number. Kubernetes 1.35 guarantees that versions of one kind can be compared; with etcd,
/// all earlier servers behave the same.
pub(crate) fn version_of(cr: &PulseIngest) -> u64 {
    cr.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

fn api(client: &Client, cr: &PulseIngest) -> Api<PulseIngest> {
    Api::namespaced(client.clone(), &names::namespace(cr))
}
