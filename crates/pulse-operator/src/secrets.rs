//! Reads the Secrets that an object references, by `get`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use pulse_crd::{PulseIngest, SecretKey, names};
use pulse_reconcile::secret_uses;
use pulse_reconcile::secrets::{self, SecretRead};

use crate::client::api_message;

/// Reads the referenced Secrets.
pub(crate) async fn read(client: &Client, cr: &PulseIngest) -> BTreeMap<SecretKey, SecretRead> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &names::namespace(cr));
    let mut read = BTreeMap::new();
    for name in secret_uses::names(cr) {
        let result = api.get_opt(&name).await.map_err(|error| api_message(&error));
        read.insert(name, result);
    }
    secrets::reads(cr, &read)
}
