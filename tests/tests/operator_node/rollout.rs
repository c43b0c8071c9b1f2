//! From a manifest to pods that process events, through upgrades, good and bad, to the end.

use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::site::NodeEnv;

/// What `pulse load` posts while pods are replaced: for a few seconds each time, with connections that stay.
const LOAD: [&str; 6] = ["--rate", "200", "--connections", "32", "--duration", "8s"];

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_runs_is_upgraded_without_a_failed_request_and_goes() -> anyhow::Result<()> {
    let site = NodeEnv::start("rollout").await?;
    let _operator = site.operator()?;
    site.apply(json!({})).await?;
    site.wait_for("Migrated").await?;
    site.wait_for("Ready").await?;
    site.processed(&site.post("page_view").await?).await?;

    upgrade(&site, "two").await?;
    fail_to_upgrade(&site, "three").await?;
    site.world.settled(crate::site::SOON).await?;
    let promised = site.world.check_ledger("ledger").await?;
    assert!(promised > 300, "{promised} events were promised");

    site.kubectl(&["delete", "pi/main", "--timeout=30s"]).await?;
    let all_gone = async || Ok(left(&site).await? == 0);
    site.soon("nothing is left", all_gone).await
}

/// A new tag: first its Job, then its pods, and all the while every request is answered.
async fn upgrade(site: &NodeEnv, tag: &str) -> anyhow::Result<()> {
    let rolled = AtomicBool::new(false);
    let posting = async {
        let (mut accepted, mut refused) = (0, Vec::new());
        loop {
            // Looked at before: a whole run of the load comes after the last change.
            let last = rolled.load(Ordering::Relaxed);
            let report = site.load(&LOAD).await?;
            accepted += report["accepted_requests"].as_u64().unwrap_or(0);
            refused.extend(
                report["refused"].as_object().into_iter().flatten().map(|(why, count)| format!("{why}: {count}")),
            );
            if last {
                return anyhow::Ok((accepted, refused));
            }
        }
    };
    let rolling = async {
        site.change(json!({ "image": { "tag": tag } })).await?;
        site.soon("it rolls, after its Job", async || gated(site, tag).await).await?;
        site.wait_for("Ready").await?;
        site.soon("the old pods are gone", async || only(site, tag).await).await?;
        rolled.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let ((accepted, refused), ()) = tokio::try_join!(posting, rolling)?;
    println!("{accepted} requests were accepted during the rollout, refused: {refused:?}");
    assert!(refused.is_empty(), "of {accepted}: {refused:?}");
    Ok(())
}

/// Whether the API's Deployment has the image; if so, a Job with it has ended well.
async fn gated(site: &NodeEnv, tag: &str) -> anyhow::Result<bool> {
    let (_, _, image) = site.deployment("api").await?;
    if image != format!("localhost/pulse:{tag}") {
        return Ok(false);
    }
    let jobs = site.all::<Job>().list(&ListParams::default()).await?.items;
    let ended = jobs.iter().filter(|job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1)));
    let mut pods = ended.filter_map(|job| job.spec.as_ref()?.template.spec.as_ref());
    assert!(pods.any(|pod| pod.containers[0].image.as_ref() == Some(&image)), "{image} runs before its migration");
    Ok(true)
}

/// Whether every pod has the image, also those that are going.
async fn only(site: &NodeEnv, tag: &str) -> anyhow::Result<bool> {
    let managed =
        ListParams::default().labels("app.kubernetes.io/instance=main,app.kubernetes.io/component!=migration");
    let pods = site.all::<Pod>().list(&managed).await?.items;
    let images = pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.as_deref());
    Ok(images.into_iter().all(|image| image.ends_with(&format!(":{tag}"))))
}

/// A migration that cannot be: the old version stays, and is scaled. Once the cause is gone, the new one comes.
async fn fail_to_upgrade(site: &NodeEnv, tag: &str) -> anyhow::Result<()> {
    let ours = format!("{}/main", site.namespace);
    give_database_to(site, "somebody/else").await?;
    let before = site.uids().await?;
    site.change(json!({ "image": { "tag": tag } })).await?;
    site.wait_for("Stalled").await?;
    assert_eq!(site.reason("Stalled", "True").await?, "MigrationFailed");
    assert_eq!(site.reason("Ready", "False").await?, "MigrationFailed");
    assert_eq!(site.reason("Available", "True").await?, "MinimumAvailable");
    let status = site.kubectl(&["get", "pi/main", "-o", "jsonpath={.status.migrations}"]).await?;
    assert!(status.contains(r#""exitCode":24"#) && status.contains("somebody/else"), "{status}");

    site.change(json!({ "workers": { "replicas": 2 } })).await?;
    let two = async || Ok(site.deployment("worker").await?.1 == 2);
    site.soon("the old version is scaled", two).await?;
    let after = site.uids().await?;
    assert_eq!((&after["api"], &after["scheduler"]), (&before["api"], &before["scheduler"]));
    assert!(before["worker"].iter().all(|uid| after["worker"].contains(uid)), "{before:?} {after:?}");
    site.processed(&site.post("page_view").await?).await?;

    give_database_to(site, &ours).await?;
    site.change(json!({ "migrations": { "trigger": "repaired" } })).await?;
    site.soon("it rolls, after its Job", async || gated(site, tag).await).await?;
    site.wait_for("Ready").await
}

async fn give_database_to(site: &NodeEnv, ingest: &str) -> anyhow::Result<()> {
    sqlx::query("UPDATE pulse_database SET ingest = $1").bind(ingest).execute(&site.world.db).await?;
    Ok(())
}

/// How many objects of the ingest are left.
async fn left(site: &NodeEnv) -> anyhow::Result<usize> {
    async fn count<K>(site: &NodeEnv) -> anyhow::Result<usize>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let objects = site.all::<K>().list(&ListParams::default()).await?.items;
        Ok(objects.iter().filter(|object| object.name_any().starts_with("main-")).count())
    }
    Ok(count::<Deployment>(site).await?
        + count::<ReplicaSet>(site).await?
        + count::<Job>(site).await?
        + count::<Pod>(site).await?
        + count::<Service>(site).await?
        + count::<ServiceAccount>(site).await?
        + count::<PodDisruptionBudget>(site).await?)
}
