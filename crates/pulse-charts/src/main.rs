//! Writes the generated files of `charts/` and `manifests/` below the folder given as argument. The CRD and the RBAC
//! rules come from the operator's types, and the values of each chart with their schema and documentation from one Rust
//! struct.
//!
//! Not part of `pulse`; `scripts/manifests` runs it.

mod crd;
mod datastores;
mod ingest;
mod monitor;
mod network;
mod operator;
mod values;

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::values::Values;

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(std::env::args_os().nth(1).context("usage: pulse-charts FOLDER")?);
    let templates = root.join("charts/pulse-operator/templates");
    write(&templates.join("crd.yaml"), &crd::template()?)?;
    write(&templates.join("_rules.tpl"), &crd::rules()?)?;
    write(&root.join("manifests/crds.yaml"), &crd::manifest()?)?;
    write(&root.join("manifests/dev/rbac.yaml"), &crd::dev_role()?)?;
    chart(&root.join("charts/pulse-operator"), &Values::of::<operator::Values>()?)?;
    chart(&root.join("charts/pulse-ingest"), &Values::of::<ingest::Values>()?)
}

/// Writes the version of the workspace into a chart's `Chart.yaml`, and the chart's values as `values.yaml`, as schema
/// and as the table of its README.
fn chart(folder: &Path, values: &Values) -> anyhow::Result<()> {
    write(&folder.join("values.yaml"), &values.yaml()?)?;
    write(&folder.join("values.schema.json"), &values.schema()?)?;
    rewrite(&folder.join("Chart.yaml"), |chart| Ok(with_version(chart)))?;
    rewrite(&folder.join("README.md"), |readme| values.readme(readme))
}

fn with_version(chart: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let lines = chart.lines().map(|line| match line.split_once(": ") {
        Some((key @ ("version" | "appVersion"), _)) => format!("{key}: {version}\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

fn rewrite(path: &Path, change: impl FnOnce(&str) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    write(path, &change(&text).with_context(|| path.display().to_string())?)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
