//! The operator, killed between any two of its writes: the end is the same.

#![expect(clippy::print_stdout, reason = "what was measured is worth a look")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, ListParams};
use pulse_tests::cluster::{Call, Fault};
use pulse_tests::eventually;
use pulse_tests::operator::{OperatorEnv, OperatorProcess, SOON};
use pulse_tests::snapshot::difference;
use serde_json::json;

/// How many crashes are tried at once.
const AT_ONCE: usize = 10;
/// How many are tried, spread over all writes; with the feature `long`, every one is.
const CRASHES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_writes_changes_nothing_in_the_end() -> anyhow::Result<()> {
    let started = Instant::now();
    let bench = OperatorEnv::start("undisturbed").await?;
    let _operator = bench.operator(&[]).await?;
    bench.served(live(&bench)).await?;
    let expected = bench.snapshot().await?;
    bench.served(die(&bench)).await?;
    let writes = bench.proxy.count(|logged| is_write(&logged.call));
    let step = if cfg!(feature = "long") { 1 } else { (writes / CRASHES).max(1) };
    let points: Vec<usize> = (0..writes).step_by(step).collect();
    let tried = points.len();
    let crashed: Vec<bool> =
        stream::iter(points).map(|after| crash(after, &expected)).buffer_unordered(AT_ONCE).try_collect().await?;
    let crashed = crashed.into_iter().filter(|crashed| *crashed).count();
    println!("{writes} writes in a life; {crashed} of {tried} crashes, in {:.0} s", started.elapsed().as_secs_f64());
    assert!(crashed * 10 >= tried * 9, "only {crashed} of {tried} crashes came about");
    Ok(())
}

/// A life whose operator is killed once so many writes were done; whether it came to that.
async fn crash(after: usize, expected: &[String]) -> anyhow::Result<bool> {
    let bench = OperatorEnv::start("crash").await?;
    let seen = Arc::new(AtomicUsize::new(0));
    let freeze = move |call: &Call| is_write(call) && seen.fetch_add(1, Ordering::Relaxed) >= after;
    let frozen = bench.proxy.inject(freeze, Fault::Hang);
    let operator = bench.operator(&[]).await?;
    let restart = async {
        eventually("the operator wants to write", SOON * 4, async || Ok(frozen.hits() > 0)).await?;
        operator.kill().await?;
        drop(frozen);
        bench.operator(&[]).await
    };
    let life = async {
        live(&bench).await?;
        let same = async || Ok(bench.snapshot().await? == expected);
        if let Err(error) = eventually("the end is the same", SOON, same).await {
            return Err(error.context(difference(expected, &bench.snapshot().await?)));
        }
        die(&bench).await
    };
    let both = async {
        tokio::pin!(restart, life);
        let restarted: Option<OperatorProcess> = tokio::select! {
            restarted = &mut restart => Some(restarted?),
            done = &mut life => {
                done?;
                None
            }
        };
        if restarted.is_some() {
            life.await?;
        }
        Ok(restarted.is_some())
    };
    bench.served(both).await.map_err(|error| error.context(format!("killed after {after} writes")))
}

/// Created, migrated, scaled, upgraded.
async fn live(bench: &OperatorEnv) -> anyhow::Result<()> {
    bench.secrets("redis://127.0.0.1:1").await?;
    bench.create("main", json!({})).await?;
    let within = SOON * 2;
    bench.settles("main", within).await?;
    bench.change("main", json!({ "workers": { "replicas": 3 }, "api": { "replicas": 1 } })).await?;
    bench.settles("main", within).await?;
    bench.change("main", json!({ "image": { "tag": "0.2.0" } })).await?;
    bench.settles("main", within).await?;
    let sampled = async || Ok(bench.condition("main", "QueueReachable").await? == "False/ConnectionFailed");
    eventually("the queue was looked at", within, sampled).await?;
    let jobs = bench.all::<Job>().list(&ListParams::default()).await?.items.len();
    anyhow::ensure!(jobs == 2, "{jobs} Jobs for two versions");
    Ok(())
}

/// Deleted: nothing comes back.
async fn die(bench: &OperatorEnv) -> anyhow::Result<()> {
    bench.instances().delete("main", &DeleteParams::default()).await?;
    bench.collect_garbage().await?;
    // Whoever has looked at this one has looked at the other.
    bench.create("later", json!({})).await?;
    bench.settles("later", SOON * 2).await?;
    bench.instances().delete("later", &DeleteParams::default()).await?;
    bench.collect_garbage().await?;
    let left = async || Ok(bench.snapshot().await?.is_empty());
    eventually("nothing is left", Duration::from_secs(5), left).await
}

fn is_write(call: &Call) -> bool {
    call.writes() && call.resource != "leases"
}
