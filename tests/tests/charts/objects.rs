//! The values that the charts are tested with, and the objects of the charts and of `manifests/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use pulse_crd::PulseIngest;
use pulse_reconcile::desired::{ChildObjects, Inputs, JobKind, JobRequest, resources};
use pulse_tests::repository;
use serde_json::Value;

use crate::helm::{Helm, INGEST, OPERATOR};

/// A chart with a values file.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) chart: &'static str,
    file: PathBuf,
}

impl Case {
    /// Both charts with each of their `ci/*-values.yaml`, one of which is empty.
    pub(crate) fn all() -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::new();
        for chart in [OPERATOR, INGEST] {
            let folder = repository().join("charts").join(chart).join("ci");
            let before = all.len();
            for file in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
                all.push(Self { chart, file: file?.path() });
            }
            anyhow::ensure!(all.len() > before, "{} is empty", folder.display());
        }
        Ok(all)
    }

    /// The flags for the values file.
    pub(crate) fn flags(&self) -> anyhow::Result<[&str; 2]> {
        Ok(["--values", self.file.to_str().context("the path is not UTF-8")?])
    }

    pub(crate) async fn text(&self, helm: Helm) -> anyhow::Result<String> {
        helm.template(self.chart, &self.flags()?).await
    }

    /// The objects that Helm 4 renders.
    pub(crate) async fn objects(&self) -> anyhow::Result<Vec<Value>> {
        objects(&self.text(Helm::Four).await?)
    }
}

/// The objects of a YAML stream.
pub(crate) fn objects(text: &str) -> anyhow::Result<Vec<Value>> {
    let text = format!("\n{text}");
    let documents = text.split("\n---").map(|document| Ok(pulse_crd::yaml::read(document)?));
    let objects: Vec<Value> = documents.collect::<anyhow::Result<_>>()?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

/// The objects of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The files of `manifests/`, except those for development, which are complete only through their kustomization.
pub(crate) fn manifests() -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in ["manifests", "manifests/samples", "manifests/quickstart"] {
        for entry in std::fs::read_dir(repository().join(folder))? {
            let path = entry?.path();
            if path.is_file() && !path.ends_with("kustomization.yaml") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The objects of a file.
pub(crate) fn objects_in(path: &Path) -> anyhow::Result<Vec<Value>> {
    objects(&std::fs::read_to_string(path)?).with_context(|| path.display().to_string())
}

/// The objects that the operator creates for a `PulseIngest` in the namespace `shop`, with a migration Job.
pub(crate) fn operator_objects(instance: &Value) -> anyhow::Result<ChildObjects> {
    let mut instance: PulseIngest = serde_json::from_value(instance.clone())?;
    instance.metadata.namespace = Some("shop".into());
    instance.metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
    let revision = pulse_reconcile::revision::desired(&instance.spec);
    let job = JobRequest {
        name: "main-migrate-0".into(),
        kind: JobKind::Migrate,
        revision: revision.clone(),
        args: vec!["migrate".into()],
    };
    let inputs = Inputs { revision: Some(&revision), secrets: BTreeMap::new(), job: Some(&job), dev_reload: None };
    Ok(resources(&instance, &inputs))
}

/// The workloads among these objects: the migration Job and three Deployments.
pub(crate) fn operator_workloads(instance: &Value) -> anyhow::Result<Vec<Value>> {
    let created = operator_objects(instance)?;
    let mut objects = vec![serde_json::to_value(created.migration.context("there is no migration Job")?)?];
    for (_, deployment) in &created.deployments {
        objects.push(serde_json::to_value(deployment)?);
    }
    Ok(objects)
}
