//! Validation with kubeconform, offline, against the oldest and the newest supported version of Kubernetes.
//!
//! The schemas of Kubernetes come from the Python package `kubernetes-validate`, all others from CRDs.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pulse_tests::cluster::packaging_program;
use pulse_tests::{python_with, repository, run};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::foreign_crds;
use crate::helm::{Helm, INGEST, OPERATOR};
use crate::objects::{Case, manifests};

pub(crate) const SUPPORTED: [&str; 2] = ["1.33.0", "1.37.0"];

/// Installs the Python package once and returns its folder.
async fn schema_package() -> anyhow::Result<&'static PathBuf> {
    static PACKAGE: OnceCell<PathBuf> = OnceCell::const_new();
    let install = async || {
        let python = python_with("kubernetes-validate", "1.37.0").await?;
        let print_folder = "import kubernetes_validate as module; print(module.__path__[0])";
        anyhow::Ok(PathBuf::from(run(Command::new(python).args(["-c", print_folder])).await?.trim()))
    };
    PACKAGE.get_or_try_init(install).await
}

/// A folder with the schemas of each version, in the layout of kubeconform.
pub(crate) async fn schemas() -> anyhow::Result<TempDir> {
    let package = schema_package().await?;
    let folder = tempfile::tempdir()?;
    let mut crds = foreign_crds::read().await?;
    crds.push(serde_json::to_value(pulse_crd::crd())?);
    for version in SUPPORTED {
        let from = package.join(format!("kubernetes-json-schema/v{version}-local-strict"));
        let to = folder.path().join(format!("v{version}"));
        std::fs::create_dir(&to)?;
        for entry in std::fs::read_dir(&from).with_context(|| from.display().to_string())? {
            let entry = entry?;
            // Their `$id` and references are web addresses; kubeconform needs file names.
            let text =
                std::fs::read_to_string(entry.path())?.replace("\"/api/_definitions.json#", "\"_definitions.json#");
            let mut schema: Value = serde_json::from_str(&text)?;
            schema.as_object_mut().context("the schema is not an object")?.remove("$id");
            std::fs::write(to.join(entry.file_name()), schema.to_string())?;
        }
        for (name, schema) in crds.iter().flat_map(crd_schemas) {
            std::fs::write(to.join(name), schema.to_string())?;
        }
    }
    Ok(folder)
}

/// The schema of each version of a CRD under strict field validation, with kubeconform's name for it.
fn crd_schemas(crd: &Value) -> Vec<(String, Value)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
    let kind = text(&crd["spec"]["names"]["kind"]);
    let group = text(&crd["spec"]["group"]);
    let group = group.split('.').next().unwrap_or_default();
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let schemas = versions.map(|version| {
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        for field in ["apiVersion", "kind"] {
            schema["properties"][field] = json!({ "type": "string" });
        }
        schema["properties"]["metadata"] = json!({ "type": "object", "additionalProperties": true });
        make_strict(&mut schema);
        (format!("{kind}-{group}-{}.json", text(&version["name"])), schema)
    });
    schemas.collect()
}

/// Forbids unknown properties, and allows null where the API server does.
fn make_strict(schema: &mut Value) {
    let is_nullable = schema["nullable"] == true;
    let Value::Object(map) = schema else { return };
    let is_free = map.contains_key("x-kubernetes-preserve-unknown-fields");
    if map.contains_key("properties") && !map.contains_key("additionalProperties") && !is_free {
        map.insert("additionalProperties".into(), json!(false));
    }
    if map.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        map.remove("type");
    }
    if is_nullable && let Some(type_) = map.remove("type") {
        map.insert("type".into(), json!([type_, "null"]));
    }
    map.values_mut().for_each(make_strict);
    for inner in ["anyOf", "allOf", "oneOf"] {
        map.get_mut(inner).and_then(Value::as_array_mut).into_iter().flatten().for_each(make_strict);
    }
}

pub(crate) async fn kubeconform(schemas: &Path, version: &str, files: &[&Path]) -> anyhow::Result<String> {
    let location = format!(
        "{}/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        schemas.display()
    );
    let mut command = Command::new(packaging_program("kubeconform").await?);
    command.args(["-strict", "-kubernetes-version", version, "-schema-location", &location]);
    // A kind of another operator, whose schema is not here.
    command.args(["-skip", "postgresql.cnpg.io/v1/Cluster"]).args(files);
    run(&mut command).await
}

#[tokio::test]
async fn rendered_objects_match_the_schemas_of_supported_kubernetes() -> anyhow::Result<()> {
    let (schemas, rendered) = (schemas().await?, tempfile::tempdir()?);
    let mut paths = Vec::new();
    for (number, case) in Case::all()?.iter().enumerate() {
        let path = rendered.path().join(format!("{number}-{}.yaml", case.chart));
        std::fs::write(&path, case.text(Helm::Four).await?)?;
        paths.push(path);
    }
    paths.extend(manifests()?);
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    for version in SUPPORTED {
        kubeconform(schemas.path(), version, &paths).await.with_context(|| version.to_owned())?;
    }
    Ok(())
}

#[tokio::test]
async fn misspelt_field_fails_schema_validation() -> anyhow::Result<()> {
    let (schemas, folder) = (schemas().await?, tempfile::tempdir()?);
    let deployment = Helm::Four.template(OPERATOR, &[]).await?.replace("imagePullPolicy:", "imagePulPolicy:");
    let sample = std::fs::read_to_string(repository().join("manifests/samples/production.yaml"))?;
    let full = ["--values", "charts/pulse-ingest/ci/full-values.yaml"];
    let full = Helm::Four.template(INGEST, &full).await?;
    let wrong = [
        (deployment, "imagePulPolicy"),
        (sample.replace("workers:", "workes:"), "workes"),
        (full.replace("podMetricsEndpoints:", "podMetricEndpoints:"), "podMetricEndpoints"),
        (full.replace("backendRefs:", "backendRef:"), "backendRef"),
    ];
    for (text, name) in wrong {
        assert!(text.contains(name), "{name} is not in the text");
        let path = folder.path().join("wrong.yaml");
        std::fs::write(&path, text)?;
        for version in SUPPORTED {
            let refusal = kubeconform(schemas.path(), version, &[&path]).await;
            let refusal = refusal.err().with_context(|| format!("{version} accepts {name}"))?.to_string();
            assert!(refusal.contains(name) && !refusal.contains("could not find schema"), "{refusal}");
        }
    }
    Ok(())
}
