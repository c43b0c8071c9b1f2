//! Upgrades of an instance, with a migration that succeeds or fails, and upgrades of the operator.

use anyhow::Context;
use pulse_tests::run;
use serde_json::json;
use tokio::process::Command;

use crate::e2e_env::{E2eEnv, ExternalApi, report};

/// `helm upgrade` command with another image tag. The other values stay.
fn upgrade_command(tag: &str, flags: &str) -> String {
    format!("helm upgrade main charts/pulse-ingest --reset-then-reuse-values --set image.tag={tag} {flags}")
}

/// Upgrades to a version with one more migration: no request is refused, and the old pods serve until the migration is
/// done.
pub(crate) async fn upgrade_under_load(env: &E2eEnv, api: &ExternalApi) -> anyhow::Result<()> {
    let before = env.pod_uids().await?;
    let load = env.load(api, "--rate 200 --duration 40s")?;
    let migrated = async {
        let job = async || {
            let finished = "jobs -l app.kubernetes.io/component=migration";
            let done = env.get_jsonpath(finished, r#"{range .items[*]}{.status.succeeded}{end}"#).await?;
            let now = env.pod_uids().await?;
            let old = before.iter().all(|uid| now.contains(uid));
            // No pod is replaced before the second Job succeeds.
            anyhow::ensure!(old || done == "11", "a pod was replaced before the schema was migrated");
            Ok(done == "11")
        };
        env.wait_for("the second migration is done", job).await
    };
    let command = upgrade_command("next", "--wait --timeout 3m");
    let upgraded = env.shell(&command);
    tokio::try_join!(migrated, async { upgraded.await.map(drop) })?;
    assert_eq!(env.condition("Ready").await?.split('/').next(), Some("True"));
    let all_new = async || {
        let now = env.pod_uids().await?;
        Ok(before.iter().all(|uid| !now.contains(uid)))
    };
    env.wait_for("every pod is new", all_new).await?;
    let column = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'events' AND column_name = 'note'";
    assert_eq!(env.database.number(column).await?, 1);
    let (accepted, refused) = report(load).await?;
    println!("          {accepted} events were accepted during the rollout, refused: {refused}");
    assert_eq!(refused, json!({}));
    let checked = env.check_nothing_lost().await?;
    println!("          none of {checked} accepted events is lost");
    Ok(())
}

/// Upgrades to a version whose migration fails: the failure is reported, the old pods stay, and a rollback recovers.
pub(crate) async fn roll_back_failed_migration(env: &E2eEnv, api: &ExternalApi) -> anyhow::Result<()> {
    let before = env.pod_uids().await?;
    env.shell(&upgrade_command("broken", "")).await?;
    let failed = async || Ok(env.condition("Migrated").await? == "False/MigrationFailed");
    env.wait_for("the failure is reported", failed).await?;
    assert!(env.condition("Available").await?.starts_with("True/"));
    assert!(env.condition("Ready").await?.starts_with("False/"));
    let status = env.shell("kubectl pulse status main").await?;
    let why = "migration 20991231000002 failed: error returned from database: relation \"nowhere\" does not exist";
    assert!(status.contains(why), "PostgreSQL's message is missing:\n{status}");
    env.post_event(api).await?;
    assert_eq!(env.pod_uids().await?, before, "the old pods keep running");
    env.shell("helm rollback main --wait --timeout 2m").await?;
    env.wait_for("main is Ready again", async || Ok(env.condition("Ready").await?.starts_with("True/"))).await?;
    assert_eq!(env.pod_uids().await?, before, "the rollback replaced a pod");
    Ok(())
}

/// Upgrades the operator and its CRD and rolls both back: no pod of an instance is replaced.
pub(crate) async fn upgrade_and_roll_back_operator(env: &E2eEnv) -> anyhow::Result<()> {
    let before = env.pod_uids().await?;
    // The chart of a later version: its CRD has one more field.
    let folder = tempfile::tempdir()?;
    run(Command::new("cp")
        .args(["-r", "charts/pulse-operator"])
        .arg(folder.path())
        .current_dir(pulse_tests::repository()))
    .await?;
    let chart = folder.path().join("pulse-operator");
    let crd = chart.join("templates/crd.yaml");
    let text = std::fs::read_to_string(&crd)?;
    let field = "              paused:\n";
    let (head, tail) = text.split_once(field).context("the CRD has spec.paused")?;
    let added = "              addedLater:\n                type: string\n                maxLength: 9\n";
    std::fs::write(&crd, format!("{head}{added}{field}{tail}"))?;
    let upgrade = format!(
        "helm -n pulse-system upgrade pulse-operator {} --reset-then-reuse-values --set image.tag=next --wait --timeout 2m",
        chart.display()
    );
    env.shell(&upgrade).await?;
    env.shell("kubectl patch pulseingest main --type=merge -p '{\"spec\":{\"addedLater\":\"here\"}}'").await?;
    assert_eq!(env.get_jsonpath("pulseingest main", "{.spec.addedLater}").await?, "here");
    env.wait_until_reconciled().await?;
    assert_eq!(env.pod_uids().await?, before, "the upgrade of the operator replaced a pod");
    env.shell("helm -n pulse-system rollback pulse-operator --wait --timeout 2m").await?;
    env.wait_until_reconciled().await?;
    assert_eq!(
        env.get_jsonpath("pulseingest main", "{.spec.addedLater}").await?,
        "",
        "the older CRD does not have the field"
    );
    assert_eq!(env.pod_uids().await?, before, "the rollback of the operator replaced a pod");
    assert!(env.condition("Ready").await?.starts_with("True/"));
    Ok(())
}
