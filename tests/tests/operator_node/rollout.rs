//! The life of an instance with real pods: installation, an upgrade, a failed upgrade, and deletion.

use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::node_env::NodeEnv;

/// Flags of `pulse load` while pods are replaced: runs of a few seconds, with persistent connections.
const LOAD: [&str; 6] = ["--rate", "200", "--connections", "32", "--duration", "8s"];

#[tokio::test(flavor = "multi_thread")]
async fn instance_upgrade_fails_no_request_and_deletion_removes_all_objects() -> anyhow::Result<()> {
    let env = NodeEnv::start("rollout").await?;
    let _operator = env.start_operator()?;
    env.apply(json!({})).await?;
    env.wait_for_condition("Migrated").await?;
    env.wait_for_condition("Ready").await?;
    env.wait_until_completed(&env.post_event("page_view").await?).await?;

    upgrade(&env, "two").await?;
    fail_to_upgrade(&env, "three").await?;
    env.servers.wait_until_settled(crate::node_env::TIMEOUT).await?;
    let accepted = env.servers.check_ledger("ledger").await?;
    assert!(accepted > 300, "only {accepted} events were accepted");

    env.kubectl(&["delete", "pi/main", "--timeout=30s"]).await?;
    let all_deleted = async || Ok(remaining_objects(&env).await? == 0);
    env.eventually("every object is deleted", all_deleted).await
}

/// Upgrades to a tag: the migration Job runs before the new pods, and no request is refused meanwhile.
async fn upgrade(env: &NodeEnv, tag: &str) -> anyhow::Result<()> {
    let rolled = AtomicBool::new(false);
    let posting = async {
        let (mut accepted, mut refused) = (0, Vec::new());
        loop {
            // Read before the run, so that a whole run follows the last change.
            let last = rolled.load(Ordering::Relaxed);
            let report = env.run_load(&LOAD).await?;
            accepted += report["accepted_requests"].as_u64().unwrap_or(0);
            refused.extend(
                report["refused"].as_object().into_iter().flatten().map(|(reason, count)| format!("{reason}: {count}")),
            );
            if last {
                return anyhow::Ok((accepted, refused));
            }
        }
    };
    let rolling = async {
        env.patch_spec(json!({ "image": { "tag": tag } })).await?;
        env.eventually("the Deployment has the image, after its migration", async || {
            is_updated_after_migration(env, tag).await
        })
        .await?;
        env.wait_for_condition("Ready").await?;
        env.eventually("the old pods have terminated", async || all_pods_have_tag(env, tag).await).await?;
        rolled.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let ((accepted, refused), ()) = tokio::try_join!(posting, rolling)?;
    println!("{accepted} requests were accepted during the rollout, refused: {refused:?}");
    assert!(refused.is_empty(), "refused, besides {accepted} accepted requests: {refused:?}");
    Ok(())
}

/// Returns true if the API's Deployment has the image, and checks that a Job with that image has then succeeded.
async fn is_updated_after_migration(env: &NodeEnv, tag: &str) -> anyhow::Result<bool> {
    let (_, _, image) = env.deployment("api").await?;
    if image != format!("localhost/pulse:{tag}") {
        return Ok(false);
    }
    let jobs = env.api::<Job>().list(&ListParams::default()).await?.items;
    let ended = jobs.iter().filter(|job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1)));
    let mut pods = ended.filter_map(|job| job.spec.as_ref()?.template.spec.as_ref());
    assert!(
        pods.any(|pod| pod.containers[0].image.as_ref() == Some(&image)),
        "{image} is rolled out before its migration"
    );
    Ok(true)
}

/// Returns true if every pod has the image, including terminating pods.
async fn all_pods_have_tag(env: &NodeEnv, tag: &str) -> anyhow::Result<bool> {
    let managed =
        ListParams::default().labels("app.kubernetes.io/instance=main,app.kubernetes.io/component!=migration");
    let pods = env.api::<Pod>().list(&managed).await?.items;
    let images = pods.iter().filter_map(|pod| pod.spec.as_ref()?.containers[0].image.as_deref());
    Ok(images.into_iter().all(|image| image.ends_with(&format!(":{tag}"))))
}

/// A migration fails: the old version keeps running and can be scaled. After the repair, the new version rolls out.
async fn fail_to_upgrade(env: &NodeEnv, tag: &str) -> anyhow::Result<()> {
    let own_instance = format!("{}/main", env.namespace);
    assign_database_to(env, "other/instance").await?;
    let before = env.pod_uids().await?;
    env.patch_spec(json!({ "image": { "tag": tag } })).await?;
    env.wait_for_condition("Stalled").await?;
    assert_eq!(env.reason("Stalled", "True").await?, "MigrationFailed");
    assert_eq!(env.reason("Ready", "False").await?, "MigrationFailed");
    assert_eq!(env.reason("Available", "True").await?, "MinimumAvailable");
    let status = env.kubectl(&["get", "pi/main", "-o", "jsonpath={.status.migrations}"]).await?;
    assert!(status.contains(r#""exitCode":24"#) && status.contains("other/instance"), "{status}");

    env.patch_spec(json!({ "workers": { "replicas": 2 } })).await?;
    let two = async || Ok(env.deployment("worker").await?.1 == 2);
    env.eventually("the old version is scaled", two).await?;
    let after = env.pod_uids().await?;
    assert_eq!((&after["api"], &after["scheduler"]), (&before["api"], &before["scheduler"]));
    assert!(before["worker"].iter().all(|uid| after["worker"].contains(uid)), "{before:?} {after:?}");
    env.wait_until_completed(&env.post_event("page_view").await?).await?;

    assign_database_to(env, &own_instance).await?;
    env.patch_spec(json!({ "migrations": { "trigger": "repaired" } })).await?;
    env.eventually("the Deployment has the image, after its migration", async || {
        is_updated_after_migration(env, tag).await
    })
    .await?;
    env.wait_for_condition("Ready").await
}

/// Writes another owner into the database.
async fn assign_database_to(env: &NodeEnv, instance: &str) -> anyhow::Result<()> {
    sqlx::query("UPDATE pulse_database SET instance = $1").bind(instance).execute(&env.servers.db).await?;
    Ok(())
}

/// The number of objects of the instance that still exist.
async fn remaining_objects(env: &NodeEnv) -> anyhow::Result<usize> {
    async fn count<K>(env: &NodeEnv) -> anyhow::Result<usize>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let objects = env.api::<K>().list(&ListParams::default()).await?.items;
        Ok(objects.iter().filter(|object| object.name_any().starts_with("main-")).count())
    }
    Ok(count::<Deployment>(env).await?
        + count::<ReplicaSet>(env).await?
        + count::<Job>(env).await?
        + count::<Pod>(env).await?
        + count::<Service>(env).await?
        + count::<ServiceAccount>(env).await?
        + count::<PodDisruptionBudget>(env).await?)
}
