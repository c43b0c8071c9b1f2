//! Migrations: approved, by hand, failed, lost, stuck, and never cut short.

#![expect(clippy::print_stdout, reason = "what was measured is worth a look")]

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use pulse_tests::eventually;
use pulse_tests::operator::{MIGRATED, OperatorEnv, OperatorProcess, SOON};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_waits_for_the_approval_of_its_hash() -> anyhow::Result<()> {
    let (bench, _operator) = start("plan").await?;
    bench.create("main", json!({ "migrations": { "policy": "Plan" } })).await?;
    let (right, wrong) = ("a".repeat(64), "b".repeat(64));
    let job = bench.job("main-plan-").await?;
    bench.finish_job(&job, 0, &MIGRATED.replace("\"x\"", &format!("\"{right}\""))).await?;
    bench.reaches("main", "Stalled", "True/PlanNeedsApproval").await?;
    assert_eq!(bench.status("main").await?["migrations"]["planHash"], right);

    bench.change("main", json!({ "migrations": { "approvedPlan": wrong } })).await?;
    looked_at_again(&bench, "main").await?;
    bench.reaches("main", "Stalled", "True/PlanNeedsApproval").await?;
    assert_eq!(jobs(&bench).await?, [job.name_any()], "the wrong hash does nothing");

    bench.change("main", json!({ "migrations": { "approvedPlan": right } })).await?;
    let job = bench.job("main-migrate-").await?;
    let args = serde_json::to_value(&job)?["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(args.contains("--expect-plan") && args.contains(&right), "{args}");
    bench.finish_job(&job, 0, MIGRATED).await?;
    bench.rollout("main").await?;
    bench.reaches("main", "Ready", "True/AsExpected").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_by_hand_is_noticed() -> anyhow::Result<()> {
    let (bench, _operator) = start("manual").await?;
    bench.create("main", json!({ "migrations": { "policy": "Manual" } })).await?;
    let job = bench.job("main-plan-").await?;
    bench.finish_job(&job, 0, MIGRATED).await?;
    bench.reaches("main", "Stalled", "True/ManualMigrationNeeded").await?;
    expires(&bench, &job.name_any(), 60).await?;
    remove(&bench, &job.name_any()).await?;
    let job = bench.job("main-plan-").await?;
    bench.reaches("main", "Stalled", "True/ManualMigrationNeeded").await?;
    bench.finish_job(&job, 0, &MIGRATED.replace("\"pending\":3", "\"pending\":0")).await?;
    bench.reaches("main", "Migrated", "True/UpToDate").await?;
    bench.rollout("main").await?;
    bench.reaches("main", "Ready", "True/AsExpected").await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_failure_that_may_pass_is_tried_again() -> anyhow::Result<()> {
    let (bench, _operator) = start("codes").await?;
    let codes = [20, 21, 22, 23, 24, 25, 1, 101];
    for code in codes {
        bench.create(&format!("c{code}"), json!({})).await?;
    }
    for code in codes {
        let name = format!("c{code}");
        let job = bench.job(&format!("{name}-migrate-")).await?;
        bench.finish_job(&job, code, "first line\nwhy it failed").await?;
        bench.reaches(&name, "Migrated", "False/MigrationFailed").await?;
        let status = bench.status(&name).await?;
        assert_eq!(status["migrations"]["message"], "why it failed");
        let last = (20..=25).contains(&code);
        bench.reaches(&name, "Stalled", if last { "True/MigrationFailed" } else { "" }).await?;
        expires(&bench, &job.name_any(), if last { 86_400 } else { 60 }).await?;
        // Its time is over.
        remove(&bench, &job.name_any()).await?;
        if last {
            looked_at_again(&bench, &name).await?;
            assert!(!jobs(&bench).await?.contains(&job.name_any()), "{code} ran again");
        } else {
            let again = bench.job(&format!("{name}-migrate-")).await?;
            assert_ne!(again.uid(), job.uid());
            bench.finish_job(&again, 0, MIGRATED).await?;
            bench.reaches(&name, "Migrated", "True/UpToDate").await?;
        }
    }
    assert_eq!(bench.proxy.count_of("delete", "jobs"), 0, "the operator deletes no Job");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_vanished_runs_again() -> anyhow::Result<()> {
    let (bench, _operator) = start("vanished").await?;
    bench.create("main", json!({})).await?;
    let job = bench.job("main-migrate-").await?;
    bench.reaches("main", "Migrated", "False/MigrationRunning").await?;
    remove(&bench, &job.name_any()).await?;
    let again = bench.job("main-migrate-").await?;
    assert_eq!(again.name_any(), job.name_any());
    assert_ne!(again.uid(), job.uid());
    bench.finish_job(&again, 0, MIGRATED).await?;
    bench.reaches("main", "Migrated", "True/UpToDate").await?;
    // Its result is known: it is not missed any more.
    remove(&bench, &again.name_any()).await?;
    looked_at_again(&bench, "main").await?;
    assert!(jobs(&bench).await?.is_empty());
    bench.reaches("main", "Migrated", "True/UpToDate").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_cannot_start_is_shown() -> anyhow::Result<()> {
    let (bench, _operator) = start("image").await?;
    bench.create("main", json!({})).await?;
    let job = bench.job("main-migrate-").await?;
    let pod = bench.make_pod(&job).await?.name_any();
    let waiting = json!({ "reason": "ErrImagePull", "message": "no such image" });
    let status = json!({ "status": { "phase": "Pending", "containerStatuses": [{
        "name": "pulse", "image": "pulse", "imageID": "", "ready": false, "restartCount": 0, "state": { "waiting": waiting },
    }] } });
    bench.all::<Pod>().patch_status(&pod, &PatchParams::default(), &Patch::Strategic(&status)).await?;
    let started = Instant::now();
    bench.reaches("main", "Migrated", "False/MigrationPodNotStarting").await?;
    println!("MigrationPodNotStarting after {:.2?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(bench.status("main").await?["conditions"].to_string().contains("ErrImagePull: no such image"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_waited_for() -> anyhow::Result<()> {
    let (bench, _operator) = start("running").await?;
    bench.create("main", json!({})).await?;
    let first = bench.job("main-migrate-").await?;
    bench.change("main", json!({ "image": { "tag": "0.2.0" } })).await?;
    looked_at_again(&bench, "main").await?;
    assert_eq!(jobs(&bench).await?, [first.name_any()], "one at a time");
    bench.finish_job(&first, 0, MIGRATED).await?;
    let second = bench.job("main-migrate-").await?;
    assert_ne!(second.name_any(), first.name_any());
    assert!(bench.all::<Deployment>().list(&ListParams::default()).await?.items.is_empty(), "nothing rolls out yet");
    bench.finish_job(&second, 0, MIGRATED).await?;
    bench.rollout("main").await?;
    assert_eq!(bench.image("main-api").await?, "localhost/pulse:0.2.0");
    assert_eq!(bench.proxy.count_of("delete", "jobs"), 0, "the operator deletes no Job");
    Ok(())
}

async fn start(prefix: &str) -> anyhow::Result<(OperatorEnv, OperatorProcess)> {
    let bench = OperatorEnv::start(prefix).await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    let operator = bench.operator(&[]).await?;
    Ok((bench, operator))
}

/// Waits until the operator has looked at the object anew.
async fn looked_at_again(bench: &OperatorEnv, name: &str) -> anyhow::Result<()> {
    let instances = bench.instances();
    let change = json!({ "spec": { "tasks": { "timeoutSeconds": 301 } } });
    instances.patch(name, &PatchParams::default(), &Patch::Merge(&change)).await?;
    let observed = async || {
        let object = instances.get(name).await?;
        Ok(object.data["status"]["observedGeneration"] == json!(object.metadata.generation))
    };
    eventually("the object is looked at", SOON, observed).await
}

async fn jobs(bench: &OperatorEnv) -> anyhow::Result<Vec<String>> {
    Ok(bench.all::<Job>().list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect())
}

/// Waits until a Job is to be kept for so many seconds more.
async fn expires(bench: &OperatorEnv, job: &str, seconds: i32) -> anyhow::Result<()> {
    let kept = async || {
        let spec = bench.all::<Job>().get(job).await?.spec;
        Ok(spec.and_then(|spec| spec.ttl_seconds_after_finished) == Some(seconds))
    };
    eventually(&format!("{job} is kept for {seconds} s"), SOON, kept).await
}

/// Deletes a Job with its pods, as the end of its time or a person would.
async fn remove(bench: &OperatorEnv, job: &str) -> anyhow::Result<()> {
    bench.all::<Job>().delete(job, &DeleteParams::background()).await?;
    let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    bench.all::<Pod>().delete_collection(&DeleteParams::background().grace_period(0), &of_job).await?;
    Ok(())
}
