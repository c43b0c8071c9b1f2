//! Releases of the operator's chart on a real API server, from the first to the last.

use std::path::Path;

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use pulse_tests::cluster::{Access, ControlPlane};
use pulse_tests::operator::{OperatorEnv, SOON};
use pulse_tests::{eventually, repository};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helm::{Helm, OPERATOR};

const CRD: &str = "pulseingests.pulseboard.dev";

/// The chart of a later version: its definition has one more field.
fn newer() -> anyhow::Result<TempDir> {
    fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            let to = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                copy(&entry.path(), &to)?;
            } else {
                std::fs::copy(entry.path(), to)?;
            }
        }
        Ok(())
    }
    let folder = tempfile::tempdir()?;
    copy(&repository().join("charts").join(OPERATOR), folder.path())?;
    let path = folder.path().join("templates/crd.yaml");
    let text = std::fs::read_to_string(&path)?;
    // The spec's; the status has one too, further down.
    let api = "              api:\n";
    let more = format!("              announced:\n                type: string\n{api}");
    std::fs::write(path, text.replacen(api, &more, 1))?;
    Ok(folder)
}

/// What a release leaves to look at.
struct Release<'a> {
    access: &'a Access,
    namespace: &'a str,
}

impl Release<'_> {
    /// Whether the definition has the field of the newer chart.
    async fn is_newer(&self) -> anyhow::Result<bool> {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.access.client()?);
        let definition = serde_json::to_value(definitions.get(CRD).await?)?;
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
        assert!(!spec["api"].is_null());
        Ok(!spec["announced"].is_null())
    }

    async fn replicas(&self) -> anyhow::Result<Option<i32>> {
        let deployments: Api<Deployment> = Api::namespaced(self.access.client()?, self.namespace);
        Ok(deployments.get("pulse-operator").await?.spec.and_then(|spec| spec.replicas))
    }

    async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.access.kubectl(&[&["-n", self.namespace], args].concat()).await
    }

    /// Says something in the field that only the newer definition has; returns what is stored of it.
    async fn announce(&self) -> anyhow::Result<String> {
        let patch = json!({ "spec": { "announced": "tomorrow" } }).to_string();
        self.kubectl(&["patch", "pulseingest", "main", "--type=merge", "-p", &patch]).await?;
        self.announced().await
    }

    async fn announced(&self) -> anyhow::Result<String> {
        self.kubectl(&["get", "pulseingest", "main", "-o", "jsonpath={.spec.announced}"]).await
    }

    /// Everything that carries the release's label.
    async fn objects(&self) -> anyhow::Result<String> {
        let kinds = "deployments,services,serviceaccounts,roles,rolebindings,poddisruptionbudgets,clusterroles,clusterrolebindings";
        let label = "app.kubernetes.io/instance=pulse-operator";
        self.kubectl(&["get", kinds, "-l", label, "--ignore-not-found", "-o", "name"]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_installed_upgraded_rolled_back_and_removed_and_objects_stay() -> anyhow::Result<()> {
    let plane = ControlPlane::start().await?;
    let newer = newer()?;
    let newer = newer.path().to_str().context("a path")?;
    let chart = format!("charts/{OPERATOR}");
    let mut is_there = false;
    for helm in Helm::BOTH {
        let namespace = plane.namespace("release").await?;
        let release = Release { access: plane.admin(), namespace: &namespace };
        let at = async |args: &[&str]| {
            helm.at(plane.admin().kubeconfig(), &[args, &["--namespace", &namespace]].concat()).await
        };

        let install = ["install", "pulse-operator", &chart];
        if is_there {
            // The definition is the first release's, which is gone.
            let refusal = at(&install).await.err().context("the definition is somebody else's")?.to_string();
            assert!(refusal.contains(CRD) && refusal.contains("ownership"), "{refusal}");
            at(&[&install[..], &["--take-ownership"]].concat()).await?;
        } else {
            at(&install).await?;
        }
        is_there = true;
        assert_eq!((release.is_newer().await?, release.replicas().await?), (false, Some(2)), "{helm:?}");
        let sample = repository().join("manifests/samples/minimal.yaml");
        let apply = async || release.kubectl(&["apply", "-f", sample.to_str().unwrap_or_default()]).await.map(|_| true);
        eventually("the definition can be used", SOON, apply).await?;

        at(&["upgrade", "pulse-operator", newer, "--set", "replicaCount=3"]).await?;
        assert_eq!((release.is_newer().await?, release.replicas().await?), (true, Some(3)), "{helm:?}");
        let stored = async || Ok(release.announce().await? == "tomorrow");
        eventually("the new field is stored", SOON, stored).await?;

        at(&["rollback", "pulse-operator", "1"]).await?;
        assert_eq!((release.is_newer().await?, release.replicas().await?), (false, Some(2)), "{helm:?}");
        let readable = async || Ok(release.announced().await?.is_empty());
        eventually("the object is as before", SOON, readable).await?;

        at(&["uninstall", "pulse-operator"]).await?;
        assert!(!release.is_newer().await?, "the definition stays");
        assert_eq!(release.kubectl(&["get", "pulseingest", "-o", "name"]).await?, "pulseingest.pulseboard.dev/main\n");
        assert_eq!(release.objects().await?, "", "{helm:?} leaves nothing else");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_is_installed_and_scaled_by_others_without_a_conflict() -> anyhow::Result<()> {
    let plane = ControlPlane::start().await?;
    pulse_tests::operator::define(plane.admin()).await?;
    for helm in Helm::BOTH {
        let namespace = plane.namespace("ingest").await?;
        let release = Release { access: plane.admin(), namespace: &namespace };
        let at = async |args: &[&str]| {
            helm.at(plane.admin().kubeconfig(), &[args, &["--namespace", &namespace]].concat()).await
        };
        // With autoscaling, the number is nobody's to write but the scaler's.
        let values = "workers.replicas=2,workers.autoscaling.maxReplicas=5";
        at(&["install", "main", "charts/pulse-ingest", "--set", values]).await?;
        release.kubectl(&["scale", "pulseingest/main", "--replicas=4"]).await?;
        at(&["upgrade", "main", "charts/pulse-ingest", "--reset-then-reuse-values", "--set", "image.tag=9.9.9"])
            .await?;
        let spec: Value =
            serde_json::from_str(&release.kubectl(&["get", "pulseingest", "main", "-o", "jsonpath={.spec}"]).await?)?;
        assert_eq!((&spec["image"]["tag"], &spec["workers"]["replicas"]), (&json!("9.9.9"), &json!(4)), "{helm:?}");
        at(&["uninstall", "main"]).await?;
        assert_eq!(release.kubectl(&["get", "pulseingest", "-o", "name"]).await?, "");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_namespace_an_operator_lives_on_the_rights_of_its_release() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("narrow").await?;
    let namespace = bench.namespace.as_str();
    let chart = format!("charts/{OPERATOR}");
    let narrow = "watch.scope=namespace,crds.enabled=false";
    let install = ["install", "pulse-operator", &chart, "--namespace", namespace, "--set", narrow];
    Helm::Four.at(bench.plane.admin().kubeconfig(), &install).await?;

    let account = bench.plane.service_account(namespace, "pulse-operator").await?;
    let operator = bench.operator_as(&account, &["--lease-name", "pulse-operator"]).await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    bench.served(bench.installed_by_itself("main")).await?;
    assert_eq!(operator.stop().await?, 0);
    let calls = bench.plane.audit(&format!("system:serviceaccount:{namespace}:pulse-operator"))?;
    let refused: Vec<_> = calls.iter().filter(|call| call["responseStatus"]["code"] == 403).collect();
    assert!(!calls.is_empty() && refused.is_empty(), "{refused:#?}");
    Ok(())
}
