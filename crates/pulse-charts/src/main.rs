//! Writes the generated files of `charts/` and `manifests/` below a folder, for the repository or for a release. The CRD and the RBAC
//! rules come from the operator's types, and the values of each chart with their schema and documentation from one Rust
//! struct.
//!
//! Not part of `pulse`; `scripts/manifests` runs it.

mod args;
mod changelog;
mod crd;
mod datastores;
mod ingest;
mod monitor;
mod network;
mod operator;
mod release;
mod values;

use std::path::Path;

use anyhow::Context;

use crate::args::Args;
use crate::release::Release;
use crate::values::{RELEASED, Values};

fn main() -> anyhow::Result<()> {
    let Args { folder: root, accept_crd, release } = Args::parse(std::env::args().skip(1))?;
    if let Some(release) = &release {
        RELEASED.set(release.image.clone()).ok().context("the image is set once")?;
    }
    if !accept_crd {
        crd::ensure_additions(&std::fs::read_to_string(root.join("manifests/crds.yaml"))?)?;
    }
    let templates = root.join("charts/pulse-operator/templates");
    write(&templates.join("crd.yaml"), &crd::template()?)?;
    write(&templates.join("_rules.tpl"), &crd::rules()?)?;
    write(&root.join("manifests/crds.yaml"), &crd::manifest()?)?;
    write(&root.join("manifests/dev/rbac.yaml"), &crd::dev_role()?)?;
    chart(&root, "pulse-operator", &Values::of::<operator::Values>()?, release.as_ref())?;
    chart(&root, "pulse-ingest", &Values::of::<ingest::Values>()?, release.as_ref())
}

/// Writes the version of the workspace and what a release adds into a chart's `Chart.yaml`, and the chart's values as `values.yaml`, as schema
/// and as the table of its README.
fn chart(root: &Path, name: &str, values: &Values, release: Option<&Release>) -> anyhow::Result<()> {
    let folder = root.join("charts").join(name);
    write(&folder.join("values.yaml"), &values.yaml()?)?;
    write(&folder.join("values.schema.json"), &values.schema()?)?;
    rewrite(&folder.join("Chart.yaml"), |chart| {
        let chart = with_version(chart);
        release.map_or(Ok(chart.clone()), |release| release.chart(&chart, root))
    })?;
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
