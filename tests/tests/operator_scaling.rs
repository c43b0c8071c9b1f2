//! The number of workers follows a real Redis, and what is unknown is never taken for zero.

#![expect(clippy::print_stdout, reason = "what was measured is worth a look")]

use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use pulse_tests::operator::{OperatorEnv, OperatorProcess, SOON};
use pulse_tests::queue::TestQueue;
use pulse_tests::{Client, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

const POLL: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_moves_the_workers_and_every_step_is_explained() -> anyhow::Result<()> {
    let (bench, operator, queue) = start("backlog").await?;
    let body = async {
        install(&bench, scaling(1, 10)).await?;
        for (tasks, from, to) in [(35, 1, 4), (1000, 4, 10)] {
            queue.add(tasks).await?;
            let started = Instant::now();
            workers(&bench, to).await?;
            println!("{from} to {to} workers after {:.2?}", started.elapsed());
            decided(&bench, from, to).await?;
        }
        bench.reaches("main", "ScalingLimited", "True/TooManyReplicas").await?;
        queue.drain().await?;
        workers(&bench, 1).await?;
        decided(&bench, 10, 1).await?;
        bench.reaches("main", "ScalingActive", "True/ValidMetricFound").await?;
        Ok(())
    };
    bench.served(body).await?;
    bench.tells("main", &["ScaledDown"]).await?;
    let events = bench.events("main").await?;
    let count = |reason: &str| events.iter().filter(|event| *event == reason).count();
    assert_eq!((count("ScaledUp"), count("ScaledDown")), (2, 1), "{events:?}");
    let metrics = Client::new(&operator.admin, "").get("/metrics").await?.text;
    for (direction, times) in [("up", 2), ("down", 1)] {
        let line =
            format!("pulse_operator_decisions_total{{direction=\"{direction}\",reason=\"BacklogTarget\"}} {times}");
        assert!(metrics.contains(&line), "{line}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_fails_never_costs_a_worker() -> anyhow::Result<()> {
    let (bench, _operator, mut queue) = start("outage").await?;
    let body = async {
        install(&bench, scaling(1, 10)).await?;
        queue.add(35).await?;
        workers(&bench, 4).await?;
        bench.reaches("main", "QueueReachable", "True/SampleOk").await?;

        queue.kill().await?;
        noticed(&bench, "down", "False/ConnectionFailed").await?;
        held(&bench, "down").await?;
        queue.start_again().await?;
        recovered(&bench, "down").await?;

        queue.signal(Signal::STOP)?;
        noticed(&bench, "hung", "False/TimedOut").await?;
        held(&bench, "hung").await?;
        queue.signal(Signal::CONT)?;
        recovered(&bench, "hung").await?;

        let () = queue.command(&["CONFIG", "SET", "requirepass", "other"]).await?;
        queue.command_as("other", &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
        noticed(&bench, "password", "False/AuthFailed").await?;
        held(&bench, "password").await?;
        queue.command_as("other", &["CONFIG", "SET", "requirepass", ""]).await?;
        recovered(&bench, "password").await?;

        queue.spoil().await?;
        noticed(&bench, "wrong type", "False/WrongType").await?;
        held(&bench, "wrong type").await?;

        queue.said().silent = true;
        queue.looked_at(2).await?;
        let () = queue.command(&["FLUSHALL"]).await?;
        noticed(&bench, "flushed", "True/SampleOk").await?;
        queue.looked_at(4).await?;
        held(&bench, "flushed").await?;
        anyhow::ensure!(scale_writes(&bench) == 1, "the number of workers was changed {} times", scale_writes(&bench));

        // A part is a lower bound: up, never down.
        queue.add(55).await?;
        workers(&bench, 6).await?;
        queue.said().silent = false;
        queue.drain().await?;
        workers(&bench, 1).await
    };
    bench.served(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_is_for_those_who_have_nothing_to_do() -> anyhow::Result<()> {
    let (bench, _operator, queue) = start("zero").await?;
    let body = async {
        install(&bench, scaling(0, 10)).await?;
        // No look ever finds a task in the stream, but tasks come and go.
        let trickle = Instant::now();
        while trickle.elapsed() < Duration::from_secs(13) {
            {
                let mut said = queue.said();
                said.accepted += 1;
                said.settled += 1;
            }
            queue.looked_at(2).await?;
            anyhow::ensure!(bench.replicas("main-worker").await? == 1, "asleep though tasks come");
        }
        anyhow::ensure!(scale_writes(&bench) == 0, "the number was changed");
        let idle = Instant::now();
        workers(&bench, 0).await?;
        println!("zero {:.1?} after the last task, of 10 s", idle.elapsed());
        anyhow::ensure!(idle.elapsed() > Duration::from_secs(9), "too soon");

        // A retry is due in 33 s; the workers are to be there 30 s before.
        let due = SystemTime::now() + Duration::from_secs(33);
        queue.said().next_due = Some(due);
        workers(&bench, 1).await?;
        let before = due.duration_since(SystemTime::now())?;
        println!("woken {before:.1?} before a retry falls due");
        anyhow::ensure!(before > Duration::from_secs(27), "too late");
        anyhow::ensure!(before < Duration::from_secs(31), "too soon");
        decided(&bench, 0, 1).await
    };
    bench.served(body).await?;
    bench.tells("main", &["ScaledToZero", "WokeFromZero"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_what_it_names() -> anyhow::Result<()> {
    let (bench, _operator, queue) = start("pause").await?;
    let body = async {
        install(&bench, scaling(1, 10)).await?;
        for (pause, tasks, held, then) in
            [("All", 35, 1, 4), ("ScaleUp", 30, 4, 7), ("ScaleDown", 0, 7, 1), ("ScaleDown", 20, 2, 2)]
        {
            let paused = |pause: &str| json!({ "workers": { "autoscaling": { "paused": pause } } });
            bench.change("main", paused(pause)).await?;
            bench.settles("main", SOON).await?;
            if tasks == 0 {
                queue.drain().await?
            } else {
                queue.add(tasks).await?
            }
            queue.looked_at(4).await?;
            workers(&bench, held).await?;
            bench.change("main", paused("None")).await?;
            workers(&bench, then).await?;
        }
        Ok(())
    };
    bench.served(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_may_scale() -> anyhow::Result<()> {
    let (bench, _operator, _queue) = start("external").await?;
    let body = async {
        let mut changes = json!({ "workers": { "autoscaling": { "mode": "External", "maxReplicas": 10 } } });
        changes["api"] = json!({ "replicas": null });
        bench.create("main", changes).await?;
        bench.settles("main", SOON).await?;
        bench.reaches("main", "ScalingActive", "False/External").await?;
        anyhow::ensure!(bench.replicas("main-api").await? == 2, "an API without a number starts with two");
        let seven = json!({ "spec": { "replicas": 7 } });
        let params = PatchParams::default();
        bench.all::<Deployment>().patch_scale("main-api", &params, &Patch::Merge(&seven)).await?;
        let scale = ["scale", "pi/main", "--replicas=5", "-n", &bench.namespace];
        bench.plane.admin().kubectl(&scale).await?;
        workers(&bench, 5).await?;
        bench.settles("main", SOON).await?;
        anyhow::ensure!(bench.replicas("main-api").await? == 7, "the API is somebody else's");

        bench.change("main", json!({ "stopped": true })).await?;
        all_replicas(&bench, [0, 0, 0]).await?;
        bench.reaches("main", "Ready", "True/Stopped").await?;
        bench.change("main", json!({ "stopped": false })).await?;
        all_replicas(&bench, [2, 5, 1]).await?;
        bench.reaches("main", "Ready", "True/AsExpected").await
    };
    bench.served(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_object_only_says_what_it_would_do() -> anyhow::Result<()> {
    let (bench, _operator, _queue) = start("paused").await?;
    let body = async {
        bench.create("main", json!({})).await?;
        bench.settles("main", SOON).await?;
        bench.change("main", json!({ "paused": true })).await?;
        bench.reaches("main", "Ready", "True/Paused").await?;
        bench.proxy.clear_log();
        let change = json!({ "api": { "replicas": 5 }, "workers": { "replicas": 3 }, "auth": { "issuer": "them" } });
        bench.change("main", change).await?;
        bench.reaches("main", "Ready", "False/Paused").await?;
        let pending = bench.status("main").await?["pendingChanges"].to_string();
        for part in ["Deployment main-api", "Deployment main-worker", "scale", "update"] {
            anyhow::ensure!(pending.contains(part), "{part} is not in {pending}");
        }
        let allowed = ["leases", "events", "pulseingests/status"];
        let others = bench.proxy.log().into_iter().filter(|logged| logged.call.writes());
        let others: Vec<String> =
            others.map(|logged| logged.call.resource).filter(|name| !allowed.contains(&name.as_str())).collect();
        anyhow::ensure!(others.is_empty(), "{others:?} were written");
        bench.change("main", json!({ "paused": false })).await?;
        all_replicas(&bench, [5, 3, 1]).await?;
        bench.settles("main", SOON).await?;
        anyhow::ensure!(bench.status("main").await?["pendingChanges"].is_null(), "nothing is pending");
        Ok(())
    };
    bench.served(body).await
}

async fn start(prefix: &str) -> anyhow::Result<(OperatorEnv, OperatorProcess, TestQueue)> {
    let bench = OperatorEnv::start(prefix).await?;
    let queue = TestQueue::start(&format!("{}/main", bench.namespace)).await?;
    bench.secrets(&queue.url).await?;
    let operator = bench.operator(&[]).await?;
    Ok((bench, operator, queue))
}

/// Ten tasks per worker, and no window.
fn scaling(least: u32, most: u32) -> Value {
    let at_once = json!({ "stabilizationWindowSeconds": 0, "percent": 1000, "workers": 1000, "periodSeconds": 1 });
    json!({
        "minReplicas": least, "maxReplicas": most, "idleSeconds": 10, "target": { "backlogPerWorker": 10 },
        "behavior": { "tolerancePercent": 0, "scaleUp": at_once, "scaleDown": at_once },
    })
}

async fn install(bench: &OperatorEnv, autoscaling: Value) -> anyhow::Result<()> {
    bench.create("main", json!({ "workers": { "autoscaling": autoscaling } })).await?;
    bench.settles("main", SOON).await?;
    bench.reaches("main", "QueueReachable", "True/SampleOk").await
}

async fn workers(bench: &OperatorEnv, wanted: i32) -> anyhow::Result<()> {
    let reached = async || Ok(bench.replicas("main-worker").await? == wanted);
    let result = eventually(&format!("there are {wanted} workers"), SOON, reached).await;
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(format!("{:#}", bench.status("main").await?))),
    }
}

async fn all_replicas(bench: &OperatorEnv, wanted: [i32; 3]) -> anyhow::Result<()> {
    let reached = async || {
        let [api, worker, scheduler] = ["main-api", "main-worker", "main-scheduler"];
        let now = [bench.replicas(api).await?, bench.replicas(worker).await?, bench.replicas(scheduler).await?];
        Ok(now == wanted)
    };
    eventually(&format!("api, worker and scheduler have {wanted:?}"), SOON, reached).await
}

async fn decided(bench: &OperatorEnv, from: i32, to: i32) -> anyhow::Result<()> {
    let told = async || {
        let decision = bench.status("main").await?["autoscaling"]["lastDecision"].clone();
        Ok(decision["from"] == from && decision["to"] == to && decision["message"].is_string())
    };
    eventually(&format!("the decision from {from} to {to} is told"), SOON, told).await
}

async fn noticed(bench: &OperatorEnv, fault: &str, reason: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    bench.reaches("main", "QueueReachable", reason).await?;
    println!("{fault}: {reason} after {:.2?}", started.elapsed());
    // A Redis that hangs is given two seconds to answer.
    let limit = 3 * POLL + Duration::from_secs(2) + SLACK;
    anyhow::ensure!(started.elapsed() < limit, "noticed too late");
    Ok(())
}

async fn held(bench: &OperatorEnv, fault: &str) -> anyhow::Result<()> {
    bench.reaches("main", "ScalingActive", "False/MetricsUnavailable").await?;
    let now = bench.replicas("main-worker").await?;
    anyhow::ensure!(now == 4, "{fault}: {now} workers");
    Ok(())
}

async fn recovered(bench: &OperatorEnv, fault: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    bench.reaches("main", "QueueReachable", "True/SampleOk").await?;
    println!("{fault}: over after {:.2?}", started.elapsed());
    anyhow::ensure!(started.elapsed() < POLL + Duration::from_secs(2) + SLACK, "recovered too late");
    bench.reaches("main", "ScalingActive", "True/ValidMetricFound").await?;
    let now = bench.replicas("main-worker").await?;
    anyhow::ensure!(now == 4, "{fault}: {now} workers");
    Ok(())
}

fn scale_writes(bench: &OperatorEnv) -> usize {
    bench.proxy.count(|logged| logged.call.resource == "deployments/scale" && logged.call.name == "main-worker")
}
