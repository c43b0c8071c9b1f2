//! Faults of an operator and its objects raise their alerts, and the first command of the runbook shows the cause.

use std::time::Duration;

use pulse_tests::cluster::{Fault, RequestInfo};
use pulse_tests::documented::Shell;
use pulse_tests::operator::{OperatorEnv, OperatorProcess, apply_crd, apply_crd_version, crd_with};
use pulse_tests::queue::TestQueue;
use pulse_tests::{Process, Prometheus, TestEnv, eventually};
use rustix::process::Signal;
use serde_json::json;

use crate::{TIMEOUT, rules, runbook};

/// An operator with an object `main`, and the Prometheus that scrapes it.
struct Operated {
    env: OperatorEnv,
    operator: OperatorProcess,
    queue: TestQueue,
    api: Process,
    prometheus: Prometheus,
    stores: TestEnv,
}

impl Operated {
    async fn start() -> anyhow::Result<Self> {
        let env = OperatorEnv::start("alerts").await?;
        let queue = TestQueue::start(&format!("{}/main", env.namespace)).await?;
        env.create_secrets(&queue.url).await?;
        let operator = env.start_operator(&[]).await?;
        let stores = TestEnv::start().await?;
        let api = Process::start(&stores, "api", &[]).await?;
        let prometheus = Prometheus::start(&stores, &[&operator.admin, &api.admin], &rules::scaled()?).await?;
        Ok(Self { env, operator, queue, api, prometheus, stores })
    }

    /// Waits until the alert fires. Then the runbook has to show the cause.
    async fn raises(&self, alert: &str, cause: &str) -> anyhow::Result<()> {
        let fires = async || Ok(self.prometheus.firing(alert).await?.is_some());
        if let Err(error) = eventually(&format!("{alert} fires"), TIMEOUT, fires).await {
            return Err(error.context(format!("{:#}", self.env.status("main").await?)));
        }
        let namespace = &self.env.namespace;
        let mut shell = Shell::new(&self.stores)?.with_kubectl(self.env.plane.admin()).await?;
        for since in ["--tail=-1", "--since=15m --tail=-1"] {
            let logs = format!("kubectl -n pulse-system logs -l app.kubernetes.io/component=operator {since}");
            shell = shell.replacing(&logs, &format!("cat {}", self.operator.log.display()));
        }
        let shell = shell
            .replacing("-n pulse-system", &format!("-n {namespace}"))
            .replacing("-n shop", &format!("-n {namespace}"));
        runbook::shows(&shell, &self.prometheus, alert, cause).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_need_help_raise_alerts() -> anyhow::Result<()> {
    let mut operated = Operated::start().await?;
    let env = &operated.env;
    let scaling = json!({ "minReplicas": 1, "maxReplicas": 1, "target": { "backlogPerWorker": 10, "drainSeconds": 5, "maxAgeSeconds": 5 } });
    env.create("main", json!({ "workers": { "autoscaling": scaling } })).await?;
    let job = env.wait_for_job("main-migrate-").await?;
    env.finish_job(&job, 20, "not migrated: migration 1 was applied with another checksum").await?;
    operated.raises("PulseMigrationStuck", "was applied with another checksum").await?;
    operated.raises("PulseNotReady", "MigrationFailed").await?;

    env.patch_spec("main", json!({ "image": { "tag": "0.2.1" } })).await?;
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    operated.queue.add(1000).await?;
    operated.raises("PulseScalingLimited", "TooManyReplicas").await?;

    let is_refused = |call: &RequestInfo| call.verb == "patch" && call.resource == "deployments";
    let forbidden = env.proxy.inject(is_refused, Fault::Respond(403));
    // Each change is tried at once: after failures, the operator waits longer than the rules' minutes of a second.
    let changes = async {
        for issuer in 0.. {
            env.patch_spec("main", json!({ "auth": { "issuer": issuer.to_string() } })).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        changed = changes => changed?,
        raised = operated.raises("PulseOperatorErrors", "Forbidden") => raised?,
    }
    drop(forbidden);

    env.patch_spec("main", json!({ "stopped": true })).await?;
    operated.api.stop().await?;
    operated.raises("PulseApiDown", "Stopped").await
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_of_other_versions_and_a_lost_operator_raise_alerts() -> anyhow::Result<()> {
    let operated = Operated::start().await?;
    let env = &operated.env;
    let newer = crd_with(|schema| {
        let autoscaling = &mut schema["spec"]["properties"]["workers"]["properties"]["autoscaling"];
        autoscaling["properties"]["mode"]["enum"] = json!(["Internal", "External", "Predictive"]);
        // Its rules know the new mode.
        autoscaling["x-kubernetes-validations"] = json!([]);
    })?;
    apply_crd_version(env.plane.admin(), &newer).await?;
    env.create("next", json!({ "workers": { "autoscaling": { "mode": "Predictive", "maxReplicas": 5 } } })).await?;
    operated.raises("PulseObjectUnreadable", "Predictive").await?;
    env.instances().delete("next", &kube::api::DeleteParams::default()).await?;

    let older = crd_with(|schema| {
        let status = schema["status"]["properties"].as_object_mut();
        status.and_then(|fields| fields.remove("pendingChanges"));
    })?;
    apply_crd_version(env.plane.admin(), &older).await?;
    env.create("main", json!({})).await?;
    operated.raises("PulseCrdOutdated", "pulse crd | kubectl apply").await?;
    apply_crd(env.plane.admin()).await?;

    operated.operator.signal(Signal::KILL)?;
    operated.raises("PulseOperatorDown", "No resources found").await
}
