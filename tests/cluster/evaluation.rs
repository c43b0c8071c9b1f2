//! An instance with the datastores of the chart, whose Redis has a short host name, and an operator in another namespace.

use serde_json::json;

use crate::cluster::{Helm, SERIAL};
use crate::e2e_env::{E2eEnv, commands, report};

/// Slow workers, so that a burst lasts. The last ones leave within seconds and not minutes.
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
  resources: { requests: { cpu: 10m }, limits: { cpu: 50m } }
  autoscaling:
    maxReplicas: 5
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
    let workers =
        async |wanted: &str| Ok(env.get_jsonpath("deployment main-worker", "{.spec.replicas}").await? == wanted);
    let reachable = async || Ok(env.condition("QueueReachable").await?.starts_with("True/"));
    env.wait_for("the operator reads the queue", reachable).await?;
    let api = env.expose_api().await?;
    let (accepted, refused) = report(env.load(&api, BURST)?).await?;
    assert_eq!(refused, json!({}), "{accepted} were accepted");
    assert!(accepted > 30_000, "{accepted} were accepted");
    env.wait_for("there are maxReplicas workers", async || workers("5").await).await?;
    env.wait_for("there is one worker again", async || workers("1").await).await?;
    assert!(reachable().await?);
    println!("          {accepted} events were accepted, and processed by one to five workers");
    env.tear_down().await
}
