//! Writes the status of an object, and claims the object in it.

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use pulse_crd::names;
use pulse_crd::{PulseIngest, PulseIngestStatus};
use pulse_reconcile::served::Served;
use serde_json::json;

use crate::client::api_message;
use crate::memory::ObjectMemory;

/// The field manager of the status.
const STATUS_MANAGER: &str = "pulse-operator-status";

/// Errors of a write.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatusError {
    /// The status cannot be written.
    #[error("cannot write the status: {}", api_message(.0))]
    Write(kube::Error),
    /// The object has changed since it was read. It may have been claimed by another operator.
    #[error("cannot claim the object, because it has changed: trying again")]
    ClaimConflict,
}

/// Records that the operator with this identity reconciles `cr`, unless the object has changed meanwhile.
///
/// # Errors
/// [`StatusError`]; the next reconcile tries again.
pub(crate) async fn claim(
    client: &Client,
    cr: &mut PulseIngest,
    memory: &mut ObjectMemory,
    identity: &str,
) -> Result<(), StatusError> {
    // The resource version makes this fail for all but one of several operators.
    let patch = json!({
        "metadata": { "resourceVersion": cr.resource_version() },
        "status": { "operator": identity },
    });
    let params = PatchParams { field_manager: Some(STATUS_MANAGER.into()), ..PatchParams::default() };
    match api(client, cr).patch_status(&cr.name_any(), &params, &Patch::Merge(&patch)).await {
        Ok(written) => {
            cr.status.get_or_insert_default().operator = Some(identity.to_owned());
            memory.written = Some((version_of(&written), written.status.unwrap_or_default()));
            Ok(())
        }
        Err(kube::Error::Api(answer)) if answer.is_conflict() => Err(StatusError::ClaimConflict),
        // The object was deleted in the meantime.
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Err(StatusError::ClaimConflict),
        Err(error) => Err(StatusError::Write(error)),
    }
}

/// Writes the status if it has changed.
///
/// # Errors
/// [`StatusError::Write`] if the API server refuses it.
pub(crate) async fn write(
    client: &Client,
    cr: &PulseIngest,
    memory: &mut ObjectMemory,
    served: &Served,
    status: PulseIngestStatus,
) -> Result<(), StatusError> {
    if cr.status.as_ref() == Some(&status) {
        return Ok(());
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
        Ok(written) => {
            memory.written = Some((version_of(&written), status));
            Ok(())
        }
        // The object was deleted in the meantime.
        Err(kube::Error::Api(answer)) if answer.is_not_found() || answer.is_conflict() => Ok(()),
        Err(error) => Err(StatusError::Write(error)),
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
