//! New versions: of the ingest, with a migration that works or does not, and of the operator.

use anyhow::Context;
use pulse_tests::run;
use serde_json::json;
use tokio::process::Command;

use crate::site::{E2eEnv, Outside, report};

/// `helm upgrade` with another image; what else was said stays.
fn upgrade(tag: &str, more: &str) -> String {
    format!("helm upgrade main charts/pulse-ingest --reset-then-reuse-values --set image.tag={tag} {more}")
}

/// To a version with one more migration: nobody is refused, and the old pods serve until it is done.
pub(crate) async fn under_load(site: &E2eEnv, api: &Outside) -> anyhow::Result<()> {
    let before = site.pods().await?;
    let load = site.load(api, "--rate 200 --duration 40s")?;
    let migrated = async {
        let job = async || {
            let finished = "jobs -l app.kubernetes.io/component=migration";
            let done = site.get(finished, r#"{range .items[*]}{.status.succeeded}{end}"#).await?;
            let now = site.pods().await?;
            let old = before.iter().all(|uid| now.contains(uid));
            // Until the second Job is done, nobody goes.
            anyhow::ensure!(old || done == "11", "a pod went before the schema was there");
            Ok(done == "11")
        };
        site.soon("the second migration is done", job).await
    };
    let command = upgrade("next", "--wait --timeout 3m");
    let upgraded = site.types(&command);
    tokio::try_join!(migrated, async { upgraded.await.map(drop) })?;
    assert_eq!(site.condition("Ready").await?.split('/').next(), Some("True"));
    let all_new = async || {
        let now = site.pods().await?;
        Ok(before.iter().all(|uid| !now.contains(uid)))
    };
    site.soon("every pod is new", all_new).await?;
    let column = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'events' AND column_name = 'note'";
    assert_eq!(site.database.number(column).await?, 1);
    let (accepted, refused) = report(load).await?;
    println!("          {accepted} events were accepted while it rolled, refused: {refused}");
    assert_eq!(refused, json!({}));
    let promised = site.nothing_is_lost().await?;
    println!("          {promised} events promised, none lost");
    Ok(())
}

/// To a version whose migration fails: told, held, and taken back.
pub(crate) async fn broken_and_rolled_back(site: &E2eEnv, api: &Outside) -> anyhow::Result<()> {
    let before = site.pods().await?;
    site.types(&upgrade("broken", "")).await?;
    let told = async || Ok(site.condition("Migrated").await? == "False/MigrationFailed");
    site.soon("the failure is told", told).await?;
    assert!(site.condition("Available").await?.starts_with("True/"));
    assert!(site.condition("Ready").await?.starts_with("False/"));
    let status = site.types("kubectl pulse status main").await?;
    let why = "migration 20991231000002 failed: error returned from database: relation \"nowhere\" does not exist";
    assert!(status.contains(why), "PostgreSQL's own words are told:\n{status}");
    site.first_event(api).await?;
    assert_eq!(site.pods().await?, before, "the old version goes on");
    site.types("helm rollback main --wait --timeout 2m").await?;
    site.soon("it is Ready again", async || Ok(site.condition("Ready").await?.starts_with("True/"))).await?;
    assert_eq!(site.pods().await?, before, "nobody had to go for that");
    Ok(())
}

/// Of the operator and its CRD, there and back: no pod of an ingest restarts.
pub(crate) async fn of_the_operator(site: &E2eEnv) -> anyhow::Result<()> {
    let before = site.pods().await?;
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
    site.types(&upgrade).await?;
    site.types("kubectl patch pulseingest main --type=merge -p '{\"spec\":{\"addedLater\":\"here\"}}'").await?;
    assert_eq!(site.get("pulseingest main", "{.spec.addedLater}").await?, "here");
    site.resynced().await?;
    assert_eq!(site.pods().await?, before, "an upgrade of the operator restarts nobody");
    site.types("helm -n pulse-system rollback pulse-operator --wait --timeout 2m").await?;
    site.resynced().await?;
    assert_eq!(site.get("pulseingest main", "{.spec.addedLater}").await?, "", "the older CRD does not know it");
    assert_eq!(site.pods().await?, before, "nor does its rollback");
    assert!(site.condition("Ready").await?.starts_with("True/"));
    Ok(())
}
