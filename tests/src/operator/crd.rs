//! The CRD in an API server.

use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::timeout::TIMEOUT;
use crate::cluster::{Access, ControlPlane};
use crate::wait::eventually;

const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema/properties";

/// The CRD of this version, with changes to the properties of its schema.
///
/// # Errors
/// If the changed CRD is none.
pub fn crd_with(change: impl FnOnce(&mut Value)) -> anyhow::Result<CustomResourceDefinition> {
    let mut crd = serde_json::to_value(pulse_crd::crd())?;
    change(crd.pointer_mut(SCHEMA).context("there is no schema")?);
    Ok(serde_json::from_value(crd)?)
}

/// Installs the CRD once per test binary.
///
/// # Errors
/// If the API server refuses it.
pub async fn install_crd(plane: &ControlPlane) -> anyhow::Result<()> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED.get_or_try_init(async || apply_crd(plane.admin()).await).await.map(drop)
}

/// Installs the CRD and waits until it is established.
///
/// # Errors
/// If the API server refuses it.
pub async fn apply_crd(access: &Access) -> anyhow::Result<()> {
    apply_crd_version(access, &pulse_crd::crd()).await
}

/// As [`apply_crd`], with the CRD of another version.
///
/// # Errors
/// If the API server refuses it.
pub async fn apply_crd_version(access: &Access, crd: &CustomResourceDefinition) -> anyhow::Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(access.client()?);
    let name = crd.name_any();
    definitions.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(crd)).await?;
    let established = async || {
        let status = definitions.get(&name).await?.status;
        let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
        Ok(conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True"))
    };
    eventually("the CRD is established", TIMEOUT, established).await
}
