//! Autoscaling of the workers with a real Redis: an unknown backlog never counts as zero.

#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use pulse_tests::operator::{OperatorEnv, OperatorProcess, TIMEOUT};
use pulse_tests::queue::TestQueue;
use pulse_tests::{Client, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

const POLL: Duration = Duration::from_millis(500);
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn scaling_follows_the_backlog_and_records_each_decision() -> anyhow::Result<()> {
    let (env, operator, queue) = start("backlog").await?;
    let body = async {
        install(&env, autoscaling(1, 10)).await?;
        for (tasks, bulk, from, to) in [(20, 15, 1, 4), (1, 1000, 4, 10)] {
            queue.add(tasks).await?;
            queue.add_bulk(bulk).await?;
            let started = Instant::now();
            wait_for_workers(&env, to).await?;
            println!("{from} to {to} workers after {:.2?}", started.elapsed());
            wait_for_decision(&env, from, to).await?;
        }
        env.wait_for_condition("main", "ScalingLimited", "True/TooManyReplicas").await?;
        queue.drain().await?;
        wait_for_workers(&env, 1).await?;
        wait_for_decision(&env, 10, 1).await?;
        env.wait_for_condition("main", "ScalingActive", "True/ValidMetricFound").await?;
        Ok(())
    };
    env.with_simulator(body).await?;
    env.wait_for_events("main", &["ScaledDown"]).await?;
    let events = env.event_reasons("main").await?;
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
async fn redis_failure_never_scales_down() -> anyhow::Result<()> {
    let (env, _operator, mut queue) = start("outage").await?;
    let body = async {
        install(&env, autoscaling(1, 10)).await?;
        queue.add(35).await?;
        wait_for_workers(&env, 4).await?;
        env.wait_for_condition("main", "QueueReachable", "True/SampleOk").await?;

        queue.kill().await?;
        expect_reported(&env, "down", "False/ConnectionFailed").await?;
        expect_workers_unchanged(&env, "down").await?;
        queue.restart().await?;
        expect_recovery(&env, "down").await?;

        queue.signal(Signal::STOP)?;
        expect_reported(&env, "hung", "False/ConnectionFailed").await?;
        expect_workers_unchanged(&env, "hung").await?;
        queue.signal(Signal::CONT)?;
        expect_recovery(&env, "hung").await?;

        let () = queue.command(&["CONFIG", "SET", "requirepass", "other"]).await?;
        queue.command_as("other", &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
        expect_reported(&env, "password", "False/AuthFailed").await?;
        expect_workers_unchanged(&env, "password").await?;
        queue.command_as("other", &["CONFIG", "SET", "requirepass", ""]).await?;
        expect_recovery(&env, "password").await?;

        queue.replace_stream_with_string().await?;
        expect_reported(&env, "wrong type", "False/WrongType").await?;
        expect_workers_unchanged(&env, "wrong type").await?;

        queue.gauges().stopped = true;
        queue.wait_for_samples(2).await?;
        let () = queue.command(&["FLUSHALL"]).await?;
        expect_reported(&env, "flushed", "True/SampleOk").await?;
        queue.wait_for_samples(4).await?;
        expect_workers_unchanged(&env, "flushed").await?;
        anyhow::ensure!(scale_writes(&env) == 1, "the number of workers was changed {} times", scale_writes(&env));

        // An incomplete sample is a lower bound: it scales up and never down.
        queue.add(55).await?;
        wait_for_workers(&env, 6).await?;
        queue.gauges().stopped = false;
        queue.drain().await?;
        wait_for_workers(&env, 1).await
    };
    env.with_simulator(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_to_zero_needs_an_idle_queue_and_a_due_retry_wakes_workers() -> anyhow::Result<()> {
    let (env, _operator, queue) = start("zero").await?;
    let body = async {
        install(&env, autoscaling(0, 10)).await?;
        // Every sample finds an empty stream, but tasks are accepted and completed between the samples.
        let trickle = Instant::now();
        while trickle.elapsed() < Duration::from_secs(13) {
            {
                let mut gauges = queue.gauges();
                gauges.accepted += 1;
                gauges.attempts += 1;
                gauges.attempt_ms += 50;
            }
            queue.wait_for_samples(2).await?;
            anyhow::ensure!(env.replicas("main-worker").await? == 1, "scaled to zero while tasks arrive");
        }
        anyhow::ensure!(scale_writes(&env) == 0, "the number of workers was changed");
        let idle = Instant::now();
        wait_for_workers(&env, 0).await?;
        println!("zero workers {:.1?} after the last task, with idleSeconds 10", idle.elapsed());
        anyhow::ensure!(idle.elapsed() > Duration::from_secs(9), "too soon");

        let ready = env.status("main").await?["conditions"][0].clone();
        // A retry is due in 33 s; the operator wakes the workers 30 s before.
        let due = SystemTime::now() + Duration::from_secs(33);
        queue.gauges().next_due = Some(due);
        wait_for_workers(&env, 1).await?;
        let before = due.duration_since(SystemTime::now())?;
        println!("workers woken {before:.1?} before the retry is due");
        anyhow::ensure!(before > Duration::from_secs(27), "too late");
        anyhow::ensure!(before < Duration::from_secs(31), "too soon");
        wait_for_decision(&env, 0, 1).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        let now = env.status("main").await?["conditions"][0].clone();
        anyhow::ensure!(now["type"] == "Ready" && now == ready, "Ready has changed: {ready} {now}");
        Ok(())
    };
    env.with_simulator(body).await?;
    env.wait_for_events("main", &["ScaledToZero", "WokeFromZero"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn autoscaling_pause_blocks_only_the_named_direction() -> anyhow::Result<()> {
    let (env, _operator, queue) = start("pause").await?;
    let body = async {
        install(&env, autoscaling(1, 10)).await?;
        for (pause, tasks, while_paused, resumed) in
            [("All", 35, 1, 4), ("ScaleUp", 30, 4, 7), ("ScaleDown", 0, 7, 1), ("ScaleDown", 20, 2, 2)]
        {
            let paused = |pause: &str| json!({ "workers": { "autoscaling": { "paused": pause } } });
            env.patch_spec("main", paused(pause)).await?;
            env.wait_until_reconciled("main", TIMEOUT).await?;
            if tasks == 0 {
                queue.drain().await?
            } else {
                queue.add(tasks).await?
            }
            queue.wait_for_samples(4).await?;
            wait_for_workers(&env, while_paused).await?;
            env.patch_spec("main", paused("None")).await?;
            wait_for_workers(&env, resumed).await?;
        }
        Ok(())
    };
    env.with_simulator(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn external_scaler_sets_the_replicas() -> anyhow::Result<()> {
    let (env, _operator, _queue) = start("external").await?;
    let body = async {
        let external = json!({ "autoscaling": { "mode": "External" } });
        env.create("main", json!({ "api": external, "workers": external })).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        env.wait_for_condition("main", "ScalingActive", "False/External").await?;
        anyhow::ensure!(env.replicas("main-api").await? == 2, "the API starts with api.replicas pods");
        let seven = json!({ "spec": { "replicas": 7 } });
        let params = PatchParams::default();
        env.api::<Deployment>().patch_scale("main-api", &params, &Patch::Merge(&seven)).await?;
        let scale = ["scale", "pi/main", "--replicas=5", "-n", &env.namespace];
        env.plane.admin().kubectl(&scale).await?;
        wait_for_workers(&env, 5).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        anyhow::ensure!(env.replicas("main-api").await? == 7, "the operator leaves the replicas of the API alone");

        env.patch_spec("main", json!({ "stopped": true })).await?;
        wait_for_all_replicas(&env, [0, 0, 0]).await?;
        env.wait_for_condition("main", "Ready", "True/Stopped").await?;
        env.patch_spec("main", json!({ "stopped": false })).await?;
        wait_for_all_replicas(&env, [2, 5, 1]).await?;
        env.wait_for_condition("main", "Ready", "True/AsExpected").await?;

        env.plane.admin().kubectl(&["scale", "pi/main", "--replicas=0", "-n", &env.namespace]).await?;
        wait_for_workers(&env, 0).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        env.plane.admin().kubectl(&["scale", "pi/main", "--replicas=2", "-n", &env.namespace]).await?;
        wait_for_workers(&env, 2).await
    };
    env.with_simulator(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_instance_only_reports_pending_changes() -> anyhow::Result<()> {
    let (env, _operator, _queue) = start("paused").await?;
    let body = async {
        env.create("main", json!({})).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        env.patch_spec("main", json!({ "paused": true })).await?;
        env.wait_for_condition("main", "Ready", "True/Paused").await?;
        env.proxy.clear_log();
        let change = json!({ "api": { "replicas": 5 }, "workers": { "replicas": 3 }, "auth": { "issuer": "them" } });
        env.patch_spec("main", change).await?;
        env.wait_for_condition("main", "Ready", "False/Paused").await?;
        let pending = env.status("main").await?["pendingChanges"].to_string();
        for part in ["Deployment main-api", "Deployment main-worker", "scale", "update"] {
            anyhow::ensure!(pending.contains(part), "{part} is not in {pending}");
        }
        let allowed = ["leases", "events", "pulseingests/status"];
        let others = env.proxy.log().into_iter().filter(|logged| logged.call.writes());
        let others: Vec<String> =
            others.map(|logged| logged.call.resource).filter(|name| !allowed.contains(&name.as_str())).collect();
        anyhow::ensure!(others.is_empty(), "{others:?} were written");
        env.patch_spec("main", json!({ "paused": false })).await?;
        wait_for_all_replicas(&env, [5, 3, 1]).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        anyhow::ensure!(env.status("main").await?["pendingChanges"].is_null(), "no change is pending");
        Ok(())
    };
    env.with_simulator(body).await
}

pub(crate) async fn start(prefix: &str) -> anyhow::Result<(OperatorEnv, OperatorProcess, TestQueue)> {
    let env = OperatorEnv::start(prefix).await?;
    let queue = TestQueue::start(&format!("{}/main", env.namespace)).await?;
    env.create_secrets(&queue.url).await?;
    let operator = env.start_operator(&[]).await?;
    Ok((env, operator, queue))
}

/// Autoscaling with ten tasks per worker, no stabilization window and no rate limit.
pub(crate) fn autoscaling(min: u32, max: u32) -> Value {
    let unlimited = json!({ "stabilizationWindowSeconds": 0, "percent": 1000, "workers": 1000, "periodSeconds": 1 });
    json!({
        "minReplicas": min, "maxReplicas": max, "idleSeconds": 10, "target": { "backlogPerWorker": 10 },
        "behavior": { "tolerancePercent": 0, "scaleUp": unlimited, "scaleDown": unlimited },
    })
}

pub(crate) async fn install(env: &OperatorEnv, autoscaling: Value) -> anyhow::Result<()> {
    env.create("main", json!({ "workers": { "autoscaling": autoscaling } })).await?;
    env.wait_until_reconciled("main", TIMEOUT).await?;
    env.wait_for_condition("main", "QueueReachable", "True/SampleOk").await
}

pub(crate) async fn wait_for_workers(env: &OperatorEnv, wanted: i32) -> anyhow::Result<()> {
    let reached = async || Ok(env.replicas("main-worker").await? == wanted);
    let result = eventually(&format!("main-worker has {wanted} replicas"), TIMEOUT, reached).await;
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(format!("{:#}", env.status("main").await?))),
    }
}

async fn wait_for_all_replicas(env: &OperatorEnv, wanted: [i32; 3]) -> anyhow::Result<()> {
    let reached = async || {
        let [api, worker, scheduler] = ["main-api", "main-worker", "main-scheduler"];
        let now = [env.replicas(api).await?, env.replicas(worker).await?, env.replicas(scheduler).await?];
        Ok(now == wanted)
    };
    eventually(&format!("api, worker and scheduler have {wanted:?}"), TIMEOUT, reached).await
}

/// Waits until the status has the decision, with a message.
async fn wait_for_decision(env: &OperatorEnv, from: i32, to: i32) -> anyhow::Result<()> {
    let recorded = async || {
        let decision = env.status("main").await?["autoscaling"]["lastDecision"].clone();
        Ok(decision["from"] == from && decision["to"] == to && decision["message"].is_string())
    };
    eventually(&format!("the decision from {from} to {to} is recorded"), TIMEOUT, recorded).await
}

/// Waits until the status reports the fault, and checks that it is not late.
async fn expect_reported(env: &OperatorEnv, fault: &str, reason: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    env.wait_for_condition("main", "QueueReachable", reason).await?;
    println!("{fault}: {reason} after {:.2?}", started.elapsed());
    // A sample of a hung Redis times out after two seconds.
    let limit = 3 * POLL + Duration::from_secs(2) + SLACK;
    anyhow::ensure!(started.elapsed() < limit, "{fault}: reported too late");
    Ok(())
}

/// Checks that the fault changes nothing: there are still four workers.
async fn expect_workers_unchanged(env: &OperatorEnv, fault: &str) -> anyhow::Result<()> {
    env.wait_for_condition("main", "ScalingActive", "False/MetricsUnavailable").await?;
    let now = env.replicas("main-worker").await?;
    anyhow::ensure!(now == 4, "{fault}: {now} workers");
    Ok(())
}

/// Waits until the queue is sampled again, and checks that there are still four workers.
async fn expect_recovery(env: &OperatorEnv, fault: &str) -> anyhow::Result<()> {
    let started = Instant::now();
    env.wait_for_condition("main", "QueueReachable", "True/SampleOk").await?;
    println!("{fault}: recovered after {:.2?}", started.elapsed());
    anyhow::ensure!(started.elapsed() < POLL + Duration::from_secs(2) + SLACK, "{fault}: recovered too late");
    env.wait_for_condition("main", "ScalingActive", "True/ValidMetricFound").await?;
    let now = env.replicas("main-worker").await?;
    anyhow::ensure!(now == 4, "{fault}: {now} workers");
    Ok(())
}

pub(crate) fn scale_writes(env: &OperatorEnv) -> usize {
    env.proxy.count(|logged| logged.call.resource == "deployments/scale" && logged.call.name == "main-worker")
}
