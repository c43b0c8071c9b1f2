//! The CRDs of other operators whose kinds the charts render, from the modules that `tests/tools/crds` pins.

use std::path::PathBuf;

use anyhow::Context;
use pulse_tests::cluster::{Access, packaging_program};
use serde_json::Value;
use tokio::sync::OnceCell;

const FILES: [&str; 4] = [
    "monitoring.coreos.com_podmonitors.yaml",
    "monitoring.coreos.com_servicemonitors.yaml",
    "monitoring.coreos.com_prometheusrules.yaml",
    "gateway.networking.k8s.io_httproutes.yaml",
];

/// The files with the CRDs.
async fn files() -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for file in FILES {
        paths.push(packaging_program(file).await?);
    }
    Ok(paths)
}

/// The CRDs.
pub(crate) async fn read() -> anyhow::Result<Vec<Value>> {
    let mut crds = Vec::new();
    for path in files().await? {
        let text = std::fs::read_to_string(&path)?;
        crds.push(pulse_crd::yaml::read(&text).with_context(|| path.display().to_string())?);
    }
    Ok(crds)
}

/// Installs the CRDs once per test binary, and waits until the API server serves them.
pub(crate) async fn install(admin: &Access) -> anyhow::Result<()> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let install = async || {
        for path in files().await? {
            let file = path.to_str().context("the path is not UTF-8")?;
            admin.kubectl(&["apply", "--server-side", "-f", file]).await?;
            admin.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", file]).await?;
        }
        anyhow::Ok(())
    };
    INSTALLED.get_or_try_init(install).await.map(drop)
}

/// Returns true for a kind in a sample whose CRD is not here.
pub(crate) fn is_unknown(object: &Value) -> bool {
    object["apiVersion"] == "postgresql.cnpg.io/v1"
}
