//! Kills the operator between any two of its writes: a restarted operator reaches the same state.

#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, ListParams};
use pulse_tests::cluster::{Fault, RequestInfo};
use pulse_tests::eventually;
use pulse_tests::operator::{OperatorEnv, OperatorProcess, TIMEOUT};
use pulse_tests::snapshot::difference;
use serde_json::json;

/// Number of crash runs at the same time.
const CONCURRENCY: usize = 6;
/// Number of crash points, spread over all writes. The feature `long` tries every write.
const CRASHES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn operator_crash_between_any_two_writes_reaches_the_same_state() -> anyhow::Result<()> {
    let started = Instant::now();
    let env = OperatorEnv::start("undisturbed").await?;
    let _operator = env.start_operator(&[]).await?;
    env.with_simulator(create_scale_and_upgrade(&env)).await?;
    let expected = env.snapshot().await?;
    env.with_simulator(delete_all(&env)).await?;
    let writes = env.proxy.count(|logged| is_write(&logged.call));
    let step = if cfg!(feature = "long") { 1 } else { (writes / CRASHES).max(1) };
    let points: Vec<usize> = (0..writes).step_by(step).collect();
    let tried = points.len();
    let crashed: Vec<bool> = stream::iter(points)
        .map(|after| run_with_crash(after, &expected))
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    let crashed = crashed.into_iter().filter(|crashed| *crashed).count();
    println!(
        "{writes} writes without a crash; {crashed} of {tried} crashes happened, in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    assert!(crashed * 10 >= tried * 9, "only {crashed} of {tried} crashes happened");
    Ok(())
}

/// Runs the lifecycle with an operator that is killed and restarted after `after` writes. Returns false if it finishes
/// before that many writes.
async fn run_with_crash(after: usize, expected: &[String]) -> anyhow::Result<bool> {
    let env = OperatorEnv::start("crash").await?;
    let seen = Arc::new(AtomicUsize::new(0));
    let freeze = move |call: &RequestInfo| is_write(call) && seen.fetch_add(1, Ordering::Relaxed) >= after;
    let frozen = env.proxy.inject(freeze, Fault::Hang);
    let operator = env.start_operator(&[]).await?;
    let restart = async {
        eventually("the operator tries to write", TIMEOUT * 4, async || Ok(frozen.hits() > 0)).await?;
        operator.kill().await?;
        drop(frozen);
        env.start_operator(&[]).await
    };
    let lifecycle = async {
        create_scale_and_upgrade(&env).await?;
        let same = async || Ok(env.snapshot().await? == expected);
        if let Err(error) = eventually("the state is that of the run without a crash", TIMEOUT, same).await {
            return Err(error.context(difference(expected, &env.snapshot().await?)));
        }
        delete_all(&env).await
    };
    let both = async {
        tokio::pin!(restart, lifecycle);
        let restarted: Option<OperatorProcess> = tokio::select! {
            restarted = &mut restart => Some(restarted?),
            done = &mut lifecycle => {
                done?;
                None
            }
        };
        if restarted.is_some() {
            lifecycle.await?;
        }
        Ok(restarted.is_some())
    };
    env.with_simulator(both).await.map_err(|error| error.context(format!("killed after {after} writes")))
}

/// Creates an instance, waits for its migration, scales it and upgrades it.
async fn create_scale_and_upgrade(env: &OperatorEnv) -> anyhow::Result<()> {
    env.create_secrets("redis://127.0.0.1:1").await?;
    env.create("main", json!({})).await?;
    let timeout = TIMEOUT * 2;
    env.wait_until_reconciled("main", timeout).await?;
    env.patch_spec("main", json!({ "workers": { "replicas": 3 }, "api": { "replicas": 1 } })).await?;
    env.wait_until_reconciled("main", timeout).await?;
    env.patch_spec("main", json!({ "image": { "tag": "0.2.0" } })).await?;
    env.wait_until_reconciled("main", timeout).await?;
    let sampled = async || Ok(env.condition("main", "QueueReachable").await? == "False/ConnectionFailed");
    eventually("the queue is sampled", timeout, sampled).await?;
    let jobs = env.api::<Job>().list(&ListParams::default()).await?.items.len();
    anyhow::ensure!(jobs == 2, "{jobs} Jobs for two versions");
    Ok(())
}

/// Deletes the instance, and checks that the operator recreates nothing.
async fn delete_all(env: &OperatorEnv) -> anyhow::Result<()> {
    env.instances().delete("main", &DeleteParams::default()).await?;
    env.collect_garbage().await?;
    // An operator that has reconciled this later instance has seen the deletion of the first.
    env.create("later", json!({})).await?;
    env.wait_until_reconciled("later", TIMEOUT * 2).await?;
    env.instances().delete("later", &DeleteParams::default()).await?;
    env.collect_garbage().await?;
    let left = async || Ok(env.snapshot().await?.is_empty());
    eventually("nothing is left", Duration::from_secs(5), left).await
}

fn is_write(call: &RequestInfo) -> bool {
    call.writes() && call.resource != "leases"
}
