//! Helm releases of both charts on a real API server: install, upgrade, rollback and uninstall.

use std::path::Path;

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use pulse_tests::cluster::{Access, ControlPlane};
use pulse_tests::operator::{OperatorEnv, TIMEOUT};
use pulse_tests::{eventually, repository};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helm::{Helm, OPERATOR};

const CRD: &str = "pulseingests.pulseboard.dev";

/// A copy of the operator's chart whose CRD has one more field, as a later version would.
fn chart_with_new_field() -> anyhow::Result<TempDir> {
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
    // The first match is in the spec; the status has the same field further down.
    let api = "              api:\n";
    let more = format!("              announced:\n                type: string\n{api}");
    std::fs::write(path, text.replacen(api, &more, 1))?;
    Ok(folder)
}

/// The objects of a release in a cluster.
struct Release<'a> {
    access: &'a Access,
    namespace: &'a str,
}

impl Release<'_> {
    /// Returns true if the CRD has the field of the newer chart.
    async fn has_new_field(&self) -> anyhow::Result<bool> {
        let crds: Api<CustomResourceDefinition> = Api::all(self.access.client()?);
        let crd = serde_json::to_value(crds.get(CRD).await?)?;
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
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

    /// Sets the field that only the newer CRD has; returns the stored value.
    async fn set_new_field(&self) -> anyhow::Result<String> {
        let patch = json!({ "spec": { "announced": "tomorrow" } }).to_string();
        self.kubectl(&["patch", "pulseingest", "main", "--type=merge", "-p", &patch]).await?;
        self.new_field().await
    }

    async fn new_field(&self) -> anyhow::Result<String> {
        self.kubectl(&["get", "pulseingest", "main", "-o", "jsonpath={.spec.announced}"]).await
    }

    /// All objects with the release's label.
    async fn objects(&self) -> anyhow::Result<String> {
        let kinds = "deployments,services,serviceaccounts,roles,rolebindings,poddisruptionbudgets,clusterroles,clusterrolebindings";
        let label = "app.kubernetes.io/instance=pulse-operator";
        self.kubectl(&["get", kinds, "-l", label, "--ignore-not-found", "-o", "name"]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_release_is_installed_upgraded_rolled_back_and_removed() -> anyhow::Result<()> {
    let plane = ControlPlane::start().await?;
    let newer = chart_with_new_field()?;
    let newer = newer.path().to_str().context("the path is not UTF-8")?;
    let chart = format!("charts/{OPERATOR}");
    let mut crd_exists = false;
    for helm in Helm::BOTH {
        let namespace = plane.namespace("release").await?;
        let release = Release { access: plane.admin(), namespace: &namespace };
        let helm_run = async |args: &[&str]| {
            helm.run_in_cluster(plane.admin().kubeconfig(), &[args, &["--namespace", &namespace]].concat()).await
        };

        let install = ["install", "pulse-operator", &chart];
        if crd_exists {
            // The CRD belongs to the first release, which was uninstalled.
            let refusal = helm_run(&install)
                .await
                .err()
                .context("an install over the CRD of another release is not refused")?
                .to_string();
            assert!(refusal.contains(CRD) && refusal.contains("ownership"), "{refusal}");
            helm_run(&[&install[..], &["--take-ownership"]].concat()).await?;
        } else {
            helm_run(&install).await?;
        }
        crd_exists = true;
        assert_eq!((release.has_new_field().await?, release.replicas().await?), (false, Some(2)), "{helm:?}");
        let sample = repository().join("manifests/samples/minimal.yaml");
        let apply = async || release.kubectl(&["apply", "-f", sample.to_str().unwrap_or_default()]).await.map(|_| true);
        eventually("the CRD is established", TIMEOUT, apply).await?;

        helm_run(&["upgrade", "pulse-operator", newer, "--set", "replicaCount=3"]).await?;
        assert_eq!((release.has_new_field().await?, release.replicas().await?), (true, Some(3)), "{helm:?}");
        let stored = async || Ok(release.set_new_field().await? == "tomorrow");
        eventually("the new field is stored", TIMEOUT, stored).await?;

        helm_run(&["rollback", "pulse-operator", "1"]).await?;
        assert_eq!((release.has_new_field().await?, release.replicas().await?), (false, Some(2)), "{helm:?}");
        let removed = async || Ok(release.new_field().await?.is_empty());
        eventually("the new field is no longer served", TIMEOUT, removed).await?;

        helm_run(&["uninstall", "pulse-operator"]).await?;
        assert!(!release.has_new_field().await?, "the CRD is kept");
        assert_eq!(release.kubectl(&["get", "pulseingest", "-o", "name"]).await?, "pulseingest.pulseboard.dev/main\n");
        assert_eq!(release.objects().await?, "", "{helm:?} removes all other objects");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_release_upgrades_without_conflict_after_external_scaling() -> anyhow::Result<()> {
    let plane = ControlPlane::start().await?;
    pulse_tests::operator::apply_crd(plane.admin()).await?;
    for helm in Helm::BOTH {
        let namespace = plane.namespace("instance").await?;
        let release = Release { access: plane.admin(), namespace: &namespace };
        let helm_run = async |args: &[&str]| {
            helm.run_in_cluster(plane.admin().kubeconfig(), &[args, &["--namespace", &namespace]].concat()).await
        };
        // With autoscaling, only the scaler writes workers.replicas.
        let values = "workers.autoscaling.mode=External";
        helm_run(&["install", "main", "charts/pulse-ingest", "--set", values]).await?;
        release.kubectl(&["scale", "pulseingest/main", "--replicas=4"]).await?;
        helm_run(&["upgrade", "main", "charts/pulse-ingest", "--reset-then-reuse-values", "--set", "image.tag=9.9.9"])
            .await?;
        let spec: Value =
            serde_json::from_str(&release.kubectl(&["get", "pulseingest", "main", "-o", "jsonpath={.spec}"]).await?)?;
        assert_eq!((&spec["image"]["tag"], &spec["workers"]["replicas"]), (&json!("9.9.9"), &json!(4)), "{helm:?}");
        helm_run(&["uninstall", "main"]).await?;
        assert_eq!(release.kubectl(&["get", "pulseingest", "-o", "name"]).await?, "");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaced_operator_needs_only_the_permissions_of_its_release() -> anyhow::Result<()> {
    let env = OperatorEnv::start("namespaced").await?;
    let namespace = env.namespace.as_str();
    let chart = format!("charts/{OPERATOR}");
    let values = "crds.enabled=false";
    let install = ["install", "pulse-operator", &chart, "--namespace", namespace, "--set", values];
    Helm::Four.run_in_cluster(env.plane.admin().kubeconfig(), &install).await?;

    let account = env.plane.service_account(namespace, "pulse-operator").await?;
    let operator = env.start_operator_via(&account, &["--lease-name", "pulse-operator"]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    assert_eq!(operator.stop().await?, 0);
    let calls = env.plane.audit(&format!("system:serviceaccount:{namespace}:pulse-operator"))?;
    let refused: Vec<_> = calls.iter().filter(|call| call["responseStatus"]["code"] == 403).collect();
    assert!(!calls.is_empty() && refused.is_empty(), "{refused:#?}");
    Ok(())
}
