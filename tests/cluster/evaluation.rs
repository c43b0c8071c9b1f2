//! An instance with the datastores of the chart, whose Redis has a short host name, and an operator in another namespace.

use serde_json::json;

use crate::cluster::{Helm, SERIAL};
use crate::e2e_env::{E2eEnv, commands, report};

/// Workers of which each completes about 1,000 events per second, less than the burst has, and a low target. They leave within
/// seconds and not minutes.
const VALUES: &str = r#"
devDatastores:
  enabled: true
  password: not-a-secret
  jwtSecret: not-a-secret-not-a-secret-not-a-secret
  # Built from the machine's packages, in place of the official images.
  postgres: { image: { registry: localhost, repository: postgres, tag: e2e } }
  redis: { image: { registry: localhost, repository: redis, tag: e2e } }
workers:
  concurrency: 1
  resources: { requests: { cpu: 10m }, limits: { cpu: 20m } }
  autoscaling:
    maxReplicas: 5
    target: { backlogPerWorker: 10 }
    behavior:
      scaleDown: { stabilizationWindowSeconds: 15, percent: 100, workers: 4, periodSeconds: 5 }
"#;
const BURST: &str = "--rate 2000 --duration 20s --connections 16 --payload-bytes 60";

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
    let (accepted, refused) = report(env.load(&api, BURST)?).await?;
    assert_eq!(refused, json!({}), "{accepted} were accepted");
    assert!(accepted > 30_000, "{accepted} were accepted");
    let events = async || env.shell("kubectl get events --field-selector involvedObject.name=main").await;
    let scaled_and_back = async || {
        let events = events().await?;
        let one = env.get_jsonpath("deployment main-worker", "{.spec.replicas}").await? == "1";
        Ok(one && events.contains("ScaledUp") && events.contains("ScaledDown"))
    };
    env.wait_for("there were more workers, and one again", scaled_and_back).await?;
    assert!(reachable().await?);
    println!("          {accepted} events were accepted\n{}", events().await?);
    env.tear_down().await
}
