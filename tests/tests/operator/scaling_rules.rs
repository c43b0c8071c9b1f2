//! The rules of autoscaling on a real API server: what survives a restart, running tasks, the fallback and schedules.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pulse_tests::eventually;
use pulse_tests::operator::TIMEOUT;
use pulse_tests::queue::TestQueue;
use serde_json::{Value, json};

use crate::scaling::{autoscaling, install, scale_writes, start, wait_for_workers};

/// Publishes 30 tasks per second of 2 s each, which are 60 slots.
async fn steady_load(queue: &TestQueue) {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        let tasks = i64::try_from(started.elapsed().as_millis() * 30 / 1000).unwrap_or(i64::MAX);
        let mut gauges = queue.gauges();
        (gauges.accepted, gauges.attempts, gauges.attempt_ms) = (tasks, tasks, tasks * 2000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_operator_removes_no_worker_under_steady_load() -> anyhow::Result<()> {
    let (env, operator, queue) = start("restart").await?;
    let body = async {
        let mut rules = autoscaling(1, 10);
        rules["behavior"]["tolerancePercent"] = json!(10);
        rules["behavior"]["scaleDown"]["stabilizationWindowSeconds"] = json!(4);
        install(&env, rules).await?;
        let recorded = async || {
            let scaling = env.status("main").await?["autoscaling"].clone();
            Ok(scaling["learned"]["attemptSeconds"] == 2.0 && scaling["lastDecision"]["reason"] == "DrainTimeTarget")
        };
        wait_for_workers(&env, 4).await?;
        eventually("the status keeps what was learned", TIMEOUT, recorded).await?;
        // Whatever the operator removed at once, or after the stabilization window, would be another write.
        queue.wait_for_samples(10).await?;
        let before = scale_writes(&env);
        anyhow::ensure!(operator.stop().await? == 0, "the operator stops");
        let _restarted = env.start_operator(&[]).await?;
        queue.wait_for_samples(16).await?;
        wait_for_workers(&env, 4).await?;
        anyhow::ensure!(recorded().await?, "{:#}", env.status("main").await?);
        anyhow::ensure!(scale_writes(&env) == before, "the number of workers was changed");
        Ok(())
    };
    tokio::select! {
        result = env.with_simulator(body) => result,
        () = steady_load(&queue) => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_task_has_no_age_and_adds_no_worker() -> anyhow::Result<()> {
    let (env, _operator, queue) = start("long").await?;
    let body = async {
        let mut rules = autoscaling(1, 10);
        rules["target"]["maxAgeSeconds"] = json!(120);
        install(&env, rules).await?;
        let stream = format!("pulse:{{{}/main}}:tasks", env.namespace);
        let id = (SystemTime::now().duration_since(UNIX_EPOCH)? - Duration::from_secs(240)).as_millis().to_string();
        let _: String = queue.command(&["XADD", &stream, &id, "task_id", "x"]).await?;
        env.wait_for_condition("main", "BacklogWithinTarget", "False/TooOld").await?;
        let () = queue.command(&["XGROUP", "CREATE", &stream, "workers", "0"]).await?;
        let _: redis::Value =
            queue.command(&["XREADGROUP", "GROUP", "workers", "w.1", "STREAMS", &stream, ">"]).await?;
        env.wait_for_condition("main", "BacklogWithinTarget", "True/WithinTarget").await?;
        queue.wait_for_samples(4).await?;
        anyhow::ensure!(env.replicas("main-worker").await? == 1, "a running task added a worker");
        Ok(())
    };
    env.with_simulator(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_backlog_keeps_at_least_the_fallback() -> anyhow::Result<()> {
    let (env, _operator, mut queue) = start("fallback").await?;
    let body = async {
        let mut rules = autoscaling(1, 10);
        rules["fallback"] = json!(3);
        install(&env, rules).await?;
        queue.kill().await?;
        wait_for_workers(&env, 3).await?;
        env.wait_for_condition("main", "ScalingActive", "False/MetricsUnavailable").await?;
        queue.restart().await?;
        wait_for_workers(&env, 1).await
    };
    env.with_simulator(body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_sets_a_minimum_and_an_invalid_one_is_named() -> anyhow::Result<()> {
    let (env, _operator, _queue) = start("schedule").await?;
    let body = async {
        // It ends each minute and starts once a year, so an end always comes first.
        let schedules = |start: &str| json!([{ "start": start, "end": "* * * * *", "minReplicas": 3 }]);
        let mut rules = autoscaling(1, 10);
        rules["schedules"] = schedules("0 0 1 1 *");
        install(&env, rules).await?;
        wait_for_workers(&env, 3).await?;
        env.wait_for_condition("main", "ScalingLimited", "True/Schedule").await?;
        let next = async || Ok(env.status("main").await?["autoscaling"]["nextWakeTime"].is_string());
        eventually("the status has the time of the next decision", TIMEOUT, next).await?;

        let invalid: Value = json!({ "workers": { "autoscaling": { "schedules": schedules("0 99 * * *") } } });
        env.patch_spec("main", invalid).await?;
        env.wait_for_condition("main", "ScalingActive", "False/InvalidSchedule").await?;
        let message = env.status("main").await?["conditions"].to_string();
        anyhow::ensure!(message.contains("0 99 * * *"), "{message}");
        wait_for_workers(&env, 1).await
    };
    env.with_simulator(body).await
}
