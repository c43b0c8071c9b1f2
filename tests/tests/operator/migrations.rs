//! Migration Jobs: with approval, run manually, failed, vanished, stuck, and never interrupted.

#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use pulse_tests::eventually;
use pulse_tests::operator::{MIGRATED, OperatorEnv, OperatorProcess, TIMEOUT};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn migration_plan_waits_for_approval_of_its_hash() -> anyhow::Result<()> {
    let (env, _operator) = start("plan").await?;
    env.create("main", json!({ "migrations": { "policy": "Plan" } })).await?;
    let (right, wrong) = ("a".repeat(64), "b".repeat(64));
    let job = env.wait_for_job("main-plan-").await?;
    env.finish_job(&job, 0, &MIGRATED.replace("\"x\"", &format!("\"{right}\""))).await?;
    env.wait_for_condition("main", "Reconciling", "True/PlanNeedsApproval").await?;
    env.wait_for_condition("main", "Stalled", "").await?;
    assert_eq!(env.status("main").await?["migrations"]["planHash"], right);

    env.patch_spec("main", json!({ "migrations": { "approvedPlan": wrong } })).await?;
    wait_for_reconcile(&env, "main").await?;
    env.wait_for_condition("main", "Reconciling", "True/PlanNeedsApproval").await?;
    assert_eq!(job_names(&env).await?, [job.name_any()], "the wrong hash starts no Job");

    env.patch_spec("main", json!({ "migrations": { "approvedPlan": right } })).await?;
    let job = env.wait_for_job("main-migrate-").await?;
    let args = serde_json::to_value(&job)?["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(args.contains("--expect-plan") && args.contains(&right), "{args}");
    env.finish_job(&job, 0, MIGRATED).await?;
    env.finish_rollout("main").await?;
    env.wait_for_condition("main", "Ready", "True/AsExpected").await
}

#[tokio::test(flavor = "multi_thread")]
async fn manual_migration_is_detected() -> anyhow::Result<()> {
    let (env, _operator) = start("manual").await?;
    env.create("main", json!({ "migrations": { "policy": "Manual" } })).await?;
    let job = env.wait_for_job("main-plan-").await?;
    env.finish_job(&job, 0, MIGRATED).await?;
    env.wait_for_condition("main", "Stalled", "True/ManualMigrationNeeded").await?;
    wait_for_ttl(&env, &job.name_any(), 60).await?;
    delete_job(&env, &job.name_any()).await?;
    let job = env.wait_for_job("main-plan-").await?;
    env.wait_for_condition("main", "Stalled", "True/ManualMigrationNeeded").await?;
    env.finish_job(&job, 0, &MIGRATED.replace("\"pending\":3", "\"pending\":0")).await?;
    env.wait_for_condition("main", "Migrated", "True/UpToDate").await?;
    env.finish_rollout("main").await?;
    env.wait_for_condition("main", "Ready", "True/AsExpected").await
}

#[tokio::test(flavor = "multi_thread")]
async fn migration_is_retried_only_after_a_transient_failure() -> anyhow::Result<()> {
    let (env, _operator) = start("codes").await?;
    let codes = [20, 21, 22, 23, 24, 25, 1, 101];
    for code in codes {
        env.create(&format!("c{code}"), json!({})).await?;
    }
    for code in codes {
        let name = format!("c{code}");
        let job = env.wait_for_job(&format!("{name}-migrate-")).await?;
        env.finish_job(&job, code, "first line\nthe cause").await?;
        env.wait_for_condition(&name, "Migrated", "False/MigrationFailed").await?;
        let status = env.status(&name).await?;
        assert_eq!(status["migrations"]["message"], "the cause");
        let is_final = (20..=25).contains(&code);
        env.wait_for_condition(&name, "Stalled", if is_final { "True/MigrationFailed" } else { "" }).await?;
        wait_for_ttl(&env, &job.name_any(), if is_final { 86_400 } else { 60 }).await?;
        // As the TTL controller does.
        delete_job(&env, &job.name_any()).await?;
        if is_final {
            wait_for_reconcile(&env, &name).await?;
            assert!(!job_names(&env).await?.contains(&job.name_any()), "{code} ran again");
        } else {
            let retry = env.wait_for_job(&format!("{name}-migrate-")).await?;
            assert_ne!(retry.uid(), job.uid());
            env.finish_job(&retry, 0, MIGRATED).await?;
            env.wait_for_condition(&name, "Migrated", "True/UpToDate").await?;
        }
    }
    assert_eq!(env.proxy.count_of("delete", "jobs"), 0, "the operator deletes no Job");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn vanished_migration_job_is_created_again() -> anyhow::Result<()> {
    let (env, _operator) = start("vanished").await?;
    env.create("main", json!({})).await?;
    let job = env.wait_for_job("main-migrate-").await?;
    env.wait_for_condition("main", "Migrated", "False/MigrationRunning").await?;
    delete_job(&env, &job.name_any()).await?;
    let retry = env.wait_for_job("main-migrate-").await?;
    assert_eq!(retry.name_any(), job.name_any());
    assert_ne!(retry.uid(), job.uid());
    env.finish_job(&retry, 0, MIGRATED).await?;
    env.wait_for_condition("main", "Migrated", "True/UpToDate").await?;
    // The result is known, so the Job is no longer needed.
    delete_job(&env, &retry.name_any()).await?;
    wait_for_reconcile(&env, "main").await?;
    assert!(job_names(&env).await?.is_empty());
    env.wait_for_condition("main", "Migrated", "True/UpToDate").await
}

#[tokio::test(flavor = "multi_thread")]
async fn migration_pod_that_cannot_start_is_reported() -> anyhow::Result<()> {
    let (env, _operator) = start("image").await?;
    env.create("main", json!({})).await?;
    let job = env.wait_for_job("main-migrate-").await?;
    let pod = env.create_job_pod(&job).await?;
    let waiting = json!({ "waiting": { "reason": "ErrImagePull", "message": "no such image" } });
    set_containers(&env, &pod, json!({ "pulse": waiting })).await?;
    let started = Instant::now();
    env.wait_for_condition("main", "Migrated", "False/MigrationPodNotStarting").await?;
    println!("MigrationPodNotStarting after {:.2?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(env.status("main").await?["conditions"].to_string().contains("ErrImagePull: no such image"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn running_migration_job_delays_the_next_one() -> anyhow::Result<()> {
    let (env, _operator) = start("running").await?;
    env.create("main", json!({})).await?;
    let first = env.wait_for_job("main-migrate-").await?;
    let pod = env.create_job_pod(&first).await?;
    set_containers(&env, &pod, json!({ "pulse": { "running": {} } })).await?;
    env.patch_spec("main", json!({ "image": { "tag": "0.2.0" } })).await?;
    wait_for_reconcile(&env, "main").await?;
    assert_eq!(job_names(&env).await?, [first.name_any()], "one Job at a time");
    // In this order, because an operator replaces a Job without pods.
    env.finish_job(&first, 0, MIGRATED).await?;
    env.api::<Pod>().delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    let second = env.wait_for_job("main-migrate-").await?;
    assert_ne!(second.name_any(), first.name_any());
    assert!(
        env.api::<Deployment>().list(&ListParams::default()).await?.items.is_empty(),
        "no Deployment before the second migration"
    );
    env.finish_job(&second, 0, MIGRATED).await?;
    env.finish_rollout("main").await?;
    assert_eq!(env.image("main-api").await?, "localhost/pulse:0.2.0");
    assert_eq!(env.proxy.count_of("delete", "jobs"), 0, "the operator deletes no Job");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn corrected_tag_replaces_a_job_that_never_started() -> anyhow::Result<()> {
    let (env, _operator) = start("typo").await?;
    env.create("main", json!({ "image": { "tag": "0.1.O" } })).await?;
    let first = env.wait_for_job("main-migrate-").await?;
    let pod = env.create_job_pod(&first).await?;
    set_containers(&env, &pod, json!({ "pulse": { "waiting": { "reason": "ImagePullBackOff" } } })).await?;
    env.wait_for_condition("main", "Migrated", "False/MigrationPodNotStarting").await?;
    let corrected = Instant::now();
    env.patch_spec("main", json!({ "image": { "tag": "0.1.0" } })).await?;
    env.wait_for_deleted_job().await?;
    assert_eq!(job_names(&env).await?, [first.name_any()], "the next Job does not run beside its pods");
    env.with_simulator(env.wait_until_reconciled("main", TIMEOUT)).await?;
    println!("rolled out {:.1?} after the correction", corrected.elapsed());
    assert_eq!(env.image("main-api").await?, "localhost/pulse:0.1.0");
    assert!(env.api::<Job>().get_opt(&first.name_any()).await?.is_none(), "the first Job is gone");
    let deletions = env.proxy.log().into_iter().filter(|logged| logged.call.verb == "delete");
    let bodies: Vec<String> = deletions.map(|logged| String::from_utf8_lossy(&logged.body).into_owned()).collect();
    let uid = first.uid().unwrap_or_default();
    assert!(bodies.iter().all(|body| body.contains(&uid) && body.contains("Foreground")), "{bodies:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn migration_beside_a_container_that_never_ends_is_done() -> anyhow::Result<()> {
    let (env, _operator) = start("sidecar").await?;
    env.create("main", json!({})).await?;
    let job = env.wait_for_job("main-migrate-").await?;
    let pod = env.create_job_pod_beside(&job, "proxy").await?;
    let ended = json!({ "terminated": { "exitCode": 0, "message": MIGRATED } });
    set_containers(&env, &pod, json!({ "pulse": ended, "proxy": { "running": {} } })).await?;
    env.wait_for_condition("main", "Migrated", "True/UpToDate").await?;
    env.finish_rollout("main").await?;
    env.wait_for_condition("main", "Ready", "True/AsExpected").await
}

/// Writes the states of a pod's containers, as the kubelet would.
async fn set_containers(env: &OperatorEnv, pod: &Pod, states: serde_json::Value) -> anyhow::Result<()> {
    let statuses = states.as_object().into_iter().flatten().map(|(name, state)| {
        json!({ "name": name, "image": name, "imageID": "", "ready": false, "restartCount": 0, "state": state })
    });
    let statuses: Vec<_> = statuses.collect();
    let status = json!({ "status": { "phase": "Pending", "containerStatuses": statuses } });
    env.api::<Pod>().patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&status)).await?;
    Ok(())
}

async fn start(prefix: &str) -> anyhow::Result<(OperatorEnv, OperatorProcess)> {
    let env = OperatorEnv::start(prefix).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    let operator = env.start_operator(&[]).await?;
    Ok((env, operator))
}

/// Waits until the operator has reconciled the object again.
async fn wait_for_reconcile(env: &OperatorEnv, name: &str) -> anyhow::Result<()> {
    let instances = env.instances();
    let change = json!({ "spec": { "tasks": { "timeoutSeconds": 301 } } });
    instances.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await?;
    let observed = async || {
        let object = instances.get(name).await?;
        Ok(object.data["status"]["observedGeneration"] == json!(object.metadata.generation))
    };
    eventually("the new generation is observed", TIMEOUT, observed).await
}

async fn job_names(env: &OperatorEnv) -> anyhow::Result<Vec<String>> {
    Ok(env.api::<Job>().list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect())
}

/// Waits until a Job has this `ttlSecondsAfterFinished`.
async fn wait_for_ttl(env: &OperatorEnv, job: &str, seconds: i32) -> anyhow::Result<()> {
    let has_ttl = async || {
        let spec = env.api::<Job>().get(job).await?.spec;
        Ok(spec.and_then(|spec| spec.ttl_seconds_after_finished) == Some(seconds))
    };
    eventually(&format!("{job} has a TTL of {seconds} s"), TIMEOUT, has_ttl).await
}

/// Deletes a Job with its pods, as the TTL controller or a user would.
async fn delete_job(env: &OperatorEnv, job: &str) -> anyhow::Result<()> {
    env.api::<Job>().delete(job, &DeleteParams::background()).await?;
    let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    env.api::<Pod>().delete_collection(&DeleteParams::background().grace_period(0), &of_job).await?;
    Ok(())
}
