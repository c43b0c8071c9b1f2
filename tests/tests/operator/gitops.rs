//! How Argo CD and Flux judge an object in each of its states: the health check of `manifests/gitops/argocd` in Argo CD's
//! Lua interpreter, and kstatus, over objects that a real operator has written.

use std::process::Stdio;

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{Patch, PatchParams, PostParams};
use pulse_tests::cluster::{packaging_program, program};
use pulse_tests::operator::{MIGRATED, OperatorEnv, TIMEOUT};
use pulse_tests::{eventually, repository};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const SCRIPT: &str = "manifests/gitops/argocd/health.lua";

/// An object in one state, with its expected judgements.
struct Recorded {
    state: String,
    object: Value,
    argo_cd: &'static str,
    /// Alternatives are separated by `|`.
    kstatus: &'static str,
}

struct Recorder {
    env: OperatorEnv,
    recorded: Vec<Recorded>,
}

impl Recorder {
    /// Waits until `Ready` has a value, as `status/reason`, and records the object.
    async fn record(
        &mut self,
        name: &str,
        ready: &str,
        argo_cd: &'static str,
        kstatus: &'static str,
    ) -> anyhow::Result<()> {
        self.env.wait_for_condition(name, "Ready", ready).await?;
        self.record_now(name, ready, argo_cd, kstatus).await
    }

    async fn record_now(
        &mut self,
        name: &str,
        state: &str,
        argo_cd: &'static str,
        kstatus: &'static str,
    ) -> anyhow::Result<()> {
        let object = serde_json::to_value(self.env.instances().get(name).await?)?;
        self.recorded.push(Recorded { state: format!("{name}: {state}"), object, argo_cd, kstatus });
        Ok(())
    }

    /// Finishes rollouts until `Ready` has a value.
    async fn settle(&self, name: &str, ready: &str) -> anyhow::Result<()> {
        let settled = async || {
            self.env.finish_rollout(name).await?;
            Ok(self.env.condition(name, "Ready").await? == ready)
        };
        eventually(&format!("{name} is {ready}"), TIMEOUT, settled).await
    }
}

/// The judgements of all objects: a list of `{argoCd: {status, message}, kstatus: {status, message}}`.
async fn judge(objects: &[&Value]) -> anyhow::Result<Vec<Value>> {
    let mut command = Command::new(packaging_program("gitops-health").await?);
    command.arg(repository().join(SCRIPT)).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut input = child.stdin.take().context("the program has an input")?;
    input.write_all(&serde_json::to_vec(objects)?).await?;
    drop(input);
    let output = child.wait_with_output().await?;
    anyhow::ensure!(output.status.success(), "gitops-health: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_and_flux_judge_every_state() -> anyhow::Result<()> {
    let mut recorder = Recorder { env: OperatorEnv::start("gitops").await?, recorded: Vec::new() };
    recorder.env.create("main", json!({})).await?;
    recorder.record_now("main", "new", "Progressing", "InProgress").await?;
    let operator = recorder.env.start_operator(&[]).await?;
    record_installation(&mut recorder).await?;
    record_migrations(&mut recorder).await?;
    record_problems(&mut recorder).await?;
    record_switches(&mut recorder).await?;
    anyhow::ensure!(operator.stop().await? == 0, "the operator exits with 0");
    recorder.env.patch_spec("main", json!({ "stopped": true })).await?;
    recorder.record_now("main", "a newer spec", "Progressing", "InProgress").await?;

    let objects: Vec<&Value> = recorder.recorded.iter().map(|recorded| &recorded.object).collect();
    let judgements = judge(&objects).await?;
    assert_eq!(judgements.len(), recorder.recorded.len());
    for (Recorded { state, object, argo_cd, kstatus }, judgement) in recorder.recorded.iter().zip(judgements) {
        let found = |tool: &str| judgement[tool]["status"].as_str().unwrap_or_default();
        assert_eq!(found("argoCd"), *argo_cd, "{state}: {:#}", object["status"]);
        let is_expected = kstatus.split('|').any(|status| status == found("kstatus"));
        assert!(is_expected, "{state}: {kstatus}, not {}: {:#}", found("kstatus"), object["status"]);
        assert_ne!(judgement["argoCd"]["message"], "", "{state}");
    }
    Ok(())
}

async fn record_installation(recorder: &mut Recorder) -> anyhow::Result<()> {
    recorder.record("main", "False/WaitingForReference", "Progressing", "InProgress").await?;
    recorder.env.create_secrets("redis://127.0.0.1:1").await?;
    recorder.record("main", "False/MigrationRunning", "Progressing", "InProgress").await?;
    recorder.env.finish_migration("main").await?;
    recorder.record("main", "False/RolloutInProgress", "Progressing", "InProgress").await?;
    recorder.settle("main", "True/AsExpected").await?;
    recorder.record("main", "True/AsExpected", "Healthy", "Current").await
}

async fn record_migrations(recorder: &mut Recorder) -> anyhow::Result<()> {
    for (name, policy, ready) in
        [("plan", "Plan", "False/PlanNeedsApproval"), ("manual", "Manual", "False/ManualMigrationNeeded")]
    {
        recorder.env.create(name, json!({ "migrations": { "policy": policy } })).await?;
        let job = recorder.env.wait_for_job(&format!("{name}-plan-")).await?;
        let planned = MIGRATED.replace("\"x\"", &format!("\"{}\"", "a".repeat(64)));
        recorder.env.finish_job(&job, 0, &planned).await?;
        // Failed as soon as it is stalled.
        recorder.record(name, ready, "Suspended", "InProgress|Failed").await?;
    }
    recorder.env.create("failed", json!({})).await?;
    let job = recorder.env.wait_for_job("failed-migrate-").await?;
    recorder.env.finish_job(&job, 22, "the schema is too new").await?;
    recorder.record("failed", "False/MigrationFailed", "Degraded", "Failed").await
}

async fn record_problems(recorder: &mut Recorder) -> anyhow::Result<()> {
    let service = json!({ "metadata": { "name": "taken-api" }, "spec": { "ports": [{ "port": 80 }] } });
    recorder.env.api::<Service>().create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    recorder.env.create("taken", json!({})).await?;
    recorder.record("taken", "False/NameConflict", "Degraded", "Failed").await?;

    recorder.env.create("stuck", json!({})).await?;
    recorder.env.finish_migration("stuck").await?;
    recorder.record("stuck", "False/RolloutInProgress", "Progressing", "InProgress").await?;
    // As the Deployment controller writes it after `progressDeadlineSeconds`.
    let deployments = recorder.env.api::<Deployment>();
    let generation = deployments.get("stuck-api").await?.metadata.generation;
    let stuck = json!({ "status": { "observedGeneration": generation, "conditions": [{
        "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too slow",
    }] } });
    deployments.patch_status("stuck-api", &PatchParams::default(), &Patch::Merge(&stuck)).await?;
    recorder.record("stuck", "False/RolloutStuck", "Degraded", "Failed").await
}

async fn record_switches(recorder: &mut Recorder) -> anyhow::Result<()> {
    recorder.env.patch_spec("main", json!({ "paused": true })).await?;
    recorder.record("main", "True/Paused", "Suspended", "Current").await?;
    recorder.env.patch_spec("main", json!({ "api": { "replicas": 3 } })).await?;
    recorder.record("main", "False/Paused", "Suspended", "InProgress").await?;
    recorder.env.patch_spec("main", json!({ "paused": false, "stopped": true })).await?;
    recorder.settle("main", "True/Stopped").await?;
    recorder.record("main", "True/Stopped", "Healthy", "Current").await?;
    recorder.env.patch_spec("main", json!({ "stopped": false })).await?;
    recorder.settle("main", "True/AsExpected").await
}

#[tokio::test(flavor = "multi_thread")]
async fn command_of_the_manual_installs_the_health_check() -> anyhow::Result<()> {
    let env = OperatorEnv::start("argocd").await?;
    let settings: ConfigMap = serde_json::from_value(json!({
        "metadata": { "name": "argocd-cm" }, "data": { "url": "https://argocd.example.com" },
    }))?;
    env.api::<ConfigMap>().create(&PostParams::default(), &settings).await?;
    let manual = std::fs::read_to_string(repository().join("docs/how-to/gitops.md"))?;
    let (_, rest) = manual.split_once("    kubectl -n argocd patch configmap").context("the manual has no command")?;
    let (command, _) = rest.split_once("\n\n").context("the command does not end")?;
    let command = format!("kubectl -n {} patch configmap{command}", env.namespace);
    let kubectl = program("kubectl").await?;
    let folder = kubectl.parent().context("kubectl has no parent folder")?.display();
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &command]).env("PATH", format!("{folder}:/usr/local/bin:/usr/bin:/bin"));
    bash.env("KUBECONFIG", env.plane.admin().kubeconfig()).current_dir(repository());
    pulse_tests::run(&mut bash).await?;
    let data = env.api::<ConfigMap>().get("argocd-cm").await?.data.context("the ConfigMap has data")?;
    let script = std::fs::read_to_string(repository().join(SCRIPT))?;
    assert_eq!(data["resource.customizations.health.pulseboard.dev_PulseIngest"], script);
    assert_eq!(data["url"], "https://argocd.example.com", "other settings are kept");
    Ok(())
}
