//! An instance with the datastores of the chart, whose Redis has a short host name, and an operator in another namespace.

use serde_json::json;

use crate::cluster::{Helm, SERIAL};
use crate::e2e_env::{E2eEnv, commands, report};

/// A low target. Workers leave within seconds and not minutes.
const VALUES: &str = r#"
devDatastores:
  enabled: true
  password: not-a-secret
  jwtSecret: not-a-secret-not-a-secret-not-a-secret
  # Built from the machine's packages, in place of the official images.
  postgres: { image: { registry: localhost, repository: postgres, tag: e2e } }
  redis: { image: { registry: localhost, repository: redis, tag: e2e } }
workers:
  autoscaling:
    maxReplicas: 5
    target: { backlogPerWorker: 10 }
    behavior:
      scaleDown: { stabilizationWindowSeconds: 15, percent: 100, workers: 4, periodSeconds: 5 }
"#;
const BURST: &str = "--rate 2000 --duration 10s --connections 16 --payload-bytes 60";

#[tokio::test(flavor = "multi_thread")]
async fn evaluation_by_helm_scales_for_a_burst_and_back() -> anyhow::Result<()> {
    let _serial = SERIAL.lock().await;
    let env = E2eEnv::start("evaluation", Helm::Four).await?;
    let values = env.file("values.yaml", VALUES)?;
    let chart = format!("charts/pulse-ingest --values {}", values.display());
    let install = commands("README.md", "### By Helm", &[("charts/pulse-ingest", &chart)])?;
    // The chart creates the Secrets.
    let install: String = install.split_inclusive('\n').filter(|line| !line.contains("create secret")).collect();
    env.shell(&install).await?;
    let reachable = async || Ok(env.condition("QueueReachable").await?.starts_with("True/"));
    env.wait_for("the operator reads the queue", reachable).await?;
    let api = env.expose_api().await?;
    // However fast this machine is, tasks wait.
    env.shell("kubectl exec deploy/main-scheduler -- /pulse pause --because evaluation").await?;
    let (accepted, refused) = report(env.load(&api, BURST)?).await?;
    assert_eq!(refused, json!({}), "{accepted} were accepted");
    assert!(accepted > 10_000, "{accepted} were accepted");
    let workers = async || env.get_jsonpath("deployment main-worker", "{.spec.replicas}").await;
    env.wait_for("there are maxReplicas workers", async || Ok(workers().await? == "5")).await?;
    env.shell("kubectl exec deploy/main-scheduler -- /pulse resume").await?;
    env.wait_for("there is one worker again", async || Ok(workers().await? == "1")).await?;
    let events = async || env.shell("kubectl get events --field-selector involvedObject.name=main").await;
    for reason in ["ScaledUp", "ScaledDown"] {
        assert!(events().await?.contains(reason), "no Event with reason {reason}");
    }
    assert!(reachable().await?);
    println!("          {accepted} events were accepted\n{}", events().await?);
    env.tear_down().await
}
