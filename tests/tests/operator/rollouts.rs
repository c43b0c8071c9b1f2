//! Rollouts of many instances: at most as many at once as the operator allows.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::ListParams;
use pulse_tests::eventually;
use pulse_tests::operator::{MIGRATED, OperatorEnv, TIMEOUT};
use serde_json::json;

const INSTANCES: [&str; 4] = ["a", "b", "c", "d"];

#[tokio::test(flavor = "multi_thread")]
async fn mass_change_of_images_rolls_out_one_instance_after_another() -> anyhow::Result<()> {
    let env = OperatorEnv::start("queue").await?;
    let _operator = env.start_operator(&["--max-concurrent-rollouts", "1"]).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.with_simulator(async {
        for name in INSTANCES {
            env.create_and_wait(name).await?;
        }
        Ok(())
    })
    .await?;
    for name in INSTANCES {
        env.patch_spec(name, json!({ "image": { "tag": "0.2.0" } })).await?;
    }
    let mut done = BTreeSet::new();
    while done.len() < INSTANCES.len() {
        let job = env.wait_for_job("").await?;
        let name = job.name_any().split('-').next().unwrap_or_default().to_owned();
        for other in INSTANCES.into_iter().filter(|other| **other != *name && !done.contains(*other)) {
            env.wait_for_condition(other, "Reconciling", "True/RolloutQueued").await?;
            env.wait_for_condition(other, "Migrated", "False/RolloutQueued").await?;
        }
        assert_eq!(unfinished_jobs(&env).await?, 1, "one migration at a time");
        env.finish_job(&job, 0, MIGRATED).await?;
        let rolls = async || Ok(env.image(&format!("{name}-api")).await? == "localhost/pulse:0.2.0");
        eventually("it rolls out", TIMEOUT, rolls).await?;
        assert_eq!(unfinished_jobs(&env).await?, 0, "the next one waits for the pods, too");
        for role in ["scheduler", "worker", "api"] {
            env.mark_ready(&format!("{name}-{role}")).await?;
        }
        env.wait_for_condition(&name, "Ready", "True/AsExpected").await?;
        done.insert(name);
    }
    Ok(())
}

async fn unfinished_jobs(env: &OperatorEnv) -> anyhow::Result<usize> {
    let jobs = env.api::<Job>().list(&ListParams::default()).await?;
    Ok(jobs.iter().filter(|job| job.status.as_ref().is_none_or(|status| status.conditions.is_none())).count())
}
