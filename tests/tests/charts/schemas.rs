//! kubeconform, with the schemas of the oldest and the newest Kubernetes that we support, all on disk.
//!
//! Those of Kubernetes come with the Python package `kubernetes-validate`; that of `PulseIngest` from its definition.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pulse_tests::cluster::packaging_program;
use pulse_tests::{python_with, repository, run};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::helm::{Helm, OPERATOR};
use crate::objects::{Case, manifests};

const SUPPORTED: [&str; 2] = ["1.33.0", "1.37.0"];

/// Where the schemas of Kubernetes are, once installed.
async fn package() -> anyhow::Result<&'static PathBuf> {
    static PACKAGE: OnceCell<PathBuf> = OnceCell::const_new();
    let install = async || {
        let python = python_with("kubernetes-validate", "1.37.0").await?;
        let of_module = "import kubernetes_validate as module; print(module.__path__[0])";
        anyhow::Ok(PathBuf::from(run(Command::new(python).args(["-c", of_module])).await?.trim()))
    };
    PACKAGE.get_or_try_init(install).await
}

/// A folder of schemas for each version, as kubeconform looks for them.
async fn schemas() -> anyhow::Result<TempDir> {
    let package = package().await?;
    let folder = tempfile::tempdir()?;
    for version in SUPPORTED {
        let from = package.join(format!("kubernetes-json-schema/v{version}-local-strict"));
        let to = folder.path().join(format!("v{version}"));
        std::fs::create_dir(&to)?;
        for entry in std::fs::read_dir(&from).with_context(|| from.display().to_string())? {
            let entry = entry?;
            // They call themselves by addresses on the web: by their files instead.
            let text =
                std::fs::read_to_string(entry.path())?.replace("\"/api/_definitions.json#", "\"_definitions.json#");
            let mut schema: Value = serde_json::from_str(&text)?;
            schema.as_object_mut().context("an object")?.remove("$id");
            std::fs::write(to.join(entry.file_name()), schema.to_string())?;
        }
        std::fs::write(to.join("pulseingest-pulseboard-v1alpha1.json"), of_ingest()?.to_string())?;
    }
    Ok(folder)
}

/// The schema of `PulseIngest`, as the API server reads it when it is strict.
fn of_ingest() -> anyhow::Result<Value> {
    let definition = serde_json::to_value(pulse_operator::crd::crd())?;
    let mut schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    for field in ["apiVersion", "kind"] {
        schema["properties"][field] = json!({ "type": "string" });
    }
    schema["properties"]["metadata"] = json!({ "type": "object", "additionalProperties": true });
    close(&mut schema);
    Ok(schema)
}

/// No other properties than those that are named; null where the API server takes it.
fn close(schema: &mut Value) {
    let is_nullable = schema["nullable"] == true;
    let Value::Object(map) = schema else { return };
    if map.contains_key("properties") && !map.contains_key("additionalProperties") {
        map.insert("additionalProperties".into(), json!(false));
    }
    if map.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        map.remove("type");
    }
    if is_nullable && let Some(type_) = map.remove("type") {
        map.insert("type".into(), json!([type_, "null"]));
    }
    map.values_mut().for_each(close);
    for inner in ["anyOf", "allOf", "oneOf"] {
        map.get_mut(inner).and_then(Value::as_array_mut).into_iter().flatten().for_each(close);
    }
}

async fn kubeconform(schemas: &Path, version: &str, files: &[&Path]) -> anyhow::Result<String> {
    let location = format!(
        "{}/{{{{.NormalizedKubernetesVersion}}}}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json",
        schemas.display()
    );
    let mut command = Command::new(packaging_program("kubeconform").await?);
    command.args(["-strict", "-kubernetes-version", version, "-schema-location", &location]);
    // The kinds of other operators, which have the schemas.
    command.args(["-skip", "ServiceMonitor,postgresql.cnpg.io/v1/Cluster"]).args(files);
    run(&mut command).await
}

#[tokio::test]
async fn every_object_is_right_for_the_oldest_and_the_newest_kubernetes() -> anyhow::Result<()> {
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
async fn a_misspelt_field_of_either_would_be_found() -> anyhow::Result<()> {
    let (schemas, folder) = (schemas().await?, tempfile::tempdir()?);
    let deployment = Helm::Four.template(OPERATOR, &[]).await?.replace("imagePullPolicy:", "imagePulPolicy:");
    let sample = std::fs::read_to_string(repository().join("manifests/samples/production.yaml"))?;
    let wrong = [(deployment, "imagePulPolicy"), (sample.replace("workers:", "workes:"), "workes")];
    for (text, name) in wrong {
        assert!(text.contains(name), "{name} is in it");
        let path = folder.path().join("wrong.yaml");
        std::fs::write(&path, text)?;
        for version in SUPPORTED {
            let refusal = kubeconform(schemas.path(), version, &[&path]).await;
            let refusal = refusal.err().with_context(|| format!("{version} refuses {name}"))?.to_string();
            assert!(refusal.contains(name) && !refusal.contains("could not find schema"), "{refusal}");
        }
    }
    Ok(())
}
