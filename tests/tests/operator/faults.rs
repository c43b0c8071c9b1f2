//! Faults of the API server: stale watches, lost history, errors, hangs, and another client that writes.

#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use pulse_tests::cluster::{Fault, RequestInfo};
use pulse_tests::operator::{OperatorEnv, OperatorProcess, TIMEOUT};
use pulse_tests::snapshot::difference;
use pulse_tests::{Client, eventually};
use serde_json::{Value, json};

const REDIS: &str = "redis://127.0.0.1:1";

#[tokio::test(flavor = "multi_thread")]
async fn stale_watches_create_no_second_job() -> anyhow::Result<()> {
    let env = OperatorEnv::start("stale").await?;
    let _late = env.proxy.inject(|call| call.verb == "watch", Fault::Stale(Duration::from_secs(5)));
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets(REDIS).await?;
    let lifecycle = async {
        env.create("main", json!({})).await?;
        env.wait_until_reconciled("main", TIMEOUT * 3).await?;
        env.patch_spec("main", json!({ "image": { "tag": "0.2.0" }, "api": { "replicas": 3 } })).await?;
        env.wait_until_reconciled("main", TIMEOUT * 3).await
    };
    env.with_simulator(lifecycle).await?;
    assert_eq!(env.image("main-api").await?, "localhost/pulse:0.2.0");
    assert_eq!(env.replicas("main-api").await?, 3);
    assert_eq!(env.api::<Job>().list(&ListParams::default()).await?.items.len(), 2, "one Job for each version");
    for (resource, expected) in [("jobs", 2), ("deployments", 3)] {
        let created = |code| {
            env.proxy.count(|logged| {
                logged.call.verb == "patch" && logged.call.resource == resource && logged.status == Some(code)
            })
        };
        assert_eq!(created(201), expected, "{resource}");
        println!("{resource}: {} created, {} existed already", created(201), created(409));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn missed_and_repeated_watch_events_are_reconciled() -> anyhow::Result<()> {
    let env = OperatorEnv::start("missed").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets(REDIS).await?;
    let lifecycle = async {
        env.create("main", json!({})).await?;
        env.wait_until_reconciled("main", TIMEOUT).await?;
        let before = env.snapshot().await?;

        // Objects change while nothing can be watched, and then the history has expired.
        let unwatched = env.proxy.inject(|call| matches!(call.verb.as_str(), "watch" | "list"), Fault::Close);
        env.proxy.cut(|call| call.verb == "watch");
        env.api::<Deployment>().delete("main-worker", &DeleteParams::background()).await?;
        env.api::<Service>().delete("main-api", &DeleteParams::background()).await?;
        let image =
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": "pulse", "image": "x" }] } } } });
        let patch = Patch::Strategic(&image);
        env.api::<Deployment>().patch("main-api", &PatchParams::default(), &patch).await?;
        let expired = env.proxy.inject_times(7, |call| call.verb == "watch", Fault::Expired);
        drop(unwatched);
        let same = async || Ok(env.snapshot().await? == before);
        if let Err(error) = eventually("the objects are as before", TIMEOUT * 2, same).await {
            return Err(error.context(difference(&before, &env.snapshot().await?)));
        }
        eventually("every watch got 410 Gone", TIMEOUT, async || Ok(expired.hits() == 7)).await?;

        // Every watch breaks repeatedly, and sends the same events again after it is reopened.
        let cut = Fault::Cut(Duration::from_millis(200));
        let broken = env.proxy.inject(|call| call.verb == "watch", cut);
        env.proxy.cut(|call| call.verb == "watch");
        env.patch_spec("main", json!({ "image": { "tag": "0.2.0" } })).await?;
        env.wait_until_reconciled("main", TIMEOUT * 2).await?;
        eventually("the watches have broken repeatedly", TIMEOUT, async || Ok(broken.hits() > 14)).await
    };
    env.with_simulator(lifecycle).await?;
    let jobs = env
        .proxy
        .count(|logged| logged.call.verb == "patch" && logged.call.resource == "jobs" && logged.status == Some(201));
    assert_eq!(jobs, 2, "one Job for each version");
    Ok(())
}

/// Starts an operator that lost the Lease again, as Kubernetes would. Returns only if the start fails.
async fn restart_whenever_exited(
    env: &OperatorEnv,
    operator: &tokio::sync::Mutex<OperatorProcess>,
) -> anyhow::Result<()> {
    loop {
        let mut running = operator.lock().await;
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(50), running.wait_for_exit()).await {
            *running = env.start_operator(&[]).await?;
        }
        drop(running);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn final_spec() -> Value {
    json!({ "image": { "tag": "0.2.0" }, "api": { "replicas": 2 }, "workers": { "replicas": 4 } })
}

async fn wait_for_final_state(env: &OperatorEnv, name: &str, deadline: Instant) -> anyhow::Result<()> {
    env.wait_until_reconciled(name, deadline.saturating_duration_since(Instant::now())).await?;
    assert_eq!(env.replicas(&format!("{name}-api")).await?, 2);
    assert_eq!(env.replicas(&format!("{name}-worker")).await?, 4);
    assert_eq!(env.image(&format!("{name}-worker")).await?, "localhost/pulse:0.2.0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_api_faults_end_in_the_desired_state() -> anyhow::Result<()> {
    const OBJECTS: usize = 5;
    let wanted = if cfg!(feature = "long") { 10_000 } else { 200 };
    let env = OperatorEnv::start("random").await?;
    env.create_secrets(REDIS).await?;
    let kinds = [Fault::Respond(500), Fault::Respond(429), Fault::Close, Fault::LoseResponse, Fault::Respond(409)];
    let faults: Vec<_> = kinds
        .into_iter()
        .zip(1..)
        .map(|(fault, seed)| {
            let dice = Dice::new(seed);
            // A 409 for the Lease would mean that another operator leads, which is not a fault.
            let spare_lease = fault == Fault::Respond(409);
            env.proxy.inject(move |call| !(spare_lease && call.resource == "leases") && dice.roll(2), fault)
        })
        .collect();
    let operator = tokio::sync::Mutex::new(env.start_operator(&[]).await?);
    let lifecycle = async {
        for number in 0..OBJECTS {
            env.create(&format!("o{number}"), json!({})).await?;
        }
        // Reconciles of the operators that have exited, and of the one that runs.
        let (mut of_exited, mut of_running) = (0, 0);
        for iteration in 1.. {
            for number in 0..OBJECTS {
                let (api, workers) = (1 + (iteration + number) % 4, 1 + iteration % 3);
                let spec = json!({ "api": { "replicas": api }, "workers": { "replicas": workers } });
                env.patch_spec(&format!("o{number}"), spec).await?;
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            let now = operator.lock().await.reconcile_count().await;
            if now < of_running {
                of_exited += of_running;
            }
            of_running = now;
            if of_exited + of_running >= wanted {
                println!("{} reconciles for {iteration} iterations of changes", of_exited + of_running);
                break;
            }
        }
        for number in 0..OBJECTS {
            env.patch_spec(&format!("o{number}"), final_spec()).await?;
        }
        let hits: usize = faults.iter().map(pulse_tests::cluster::InjectedFault::hits).sum();
        let calls = env.proxy.log().len();
        drop(faults);
        let faults_ended = Instant::now();
        for number in 0..OBJECTS {
            wait_for_final_state(&env, &format!("o{number}"), faults_ended + Duration::from_secs(60)).await?;
        }
        println!("{hits} of {calls} calls failed; all reconciled in {:.1} s", faults_ended.elapsed().as_secs_f64());
        Ok(())
    };
    tokio::select! {
        result = env.with_simulator(lifecycle) => result,
        error = restart_whenever_exited(&env, &operator) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_instance_does_not_delay_others() -> anyhow::Result<()> {
    let env = OperatorEnv::start("blocked").await?;
    let operator = env.start_operator(&[]).await?;
    env.create_secrets(REDIS).await?;
    env.apply_secret("hanging", "uri", "postgres://x").await?;
    let lifecycle = async {
        let other = json!({ "database": { "urlSecretRef": { "name": "hanging" } } });
        env.create("one", other).await?;
        env.create("two", json!({})).await?;
        env.wait_until_reconciled("one", TIMEOUT).await?;
        env.wait_until_reconciled("two", TIMEOUT).await?;
        let baseline = time_to_scale(&env, "two-api", 3).await?;

        let hung = env.proxy.inject(|call| call.verb == "get" && call.name == "hanging", Fault::Hang);
        eventually("a GET hangs", TIMEOUT, async || Ok(hung.hits() > 0)).await?;
        let with_hung_get = time_to_scale(&env, "two-api", 4).await?;
        drop(hung);

        let refused =
            |call: &RequestInfo| call.verb == "patch" && call.resource == "deployments" && call.name == "one-api";
        let forbidden = env.proxy.inject(refused, Fault::Respond(403));
        env.patch_spec("one", json!({ "auth": { "issuer": "other" } })).await?;
        env.wait_for_condition("one", "Ready", "False/ReconcileFailed").await?;
        let with_forbidden = time_to_scale(&env, "two-api", 5).await?;
        drop(forbidden);
        env.wait_until_reconciled("one", TIMEOUT).await?;
        println!("scaled after {baseline:.2?}, with a hung GET {with_hung_get:.2?}, with a 403 {with_forbidden:.2?}");
        Ok(())
    };
    env.with_simulator(lifecycle).await?;
    assert_eq!(livez_status(&operator).await, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_with_a_silent_watch_is_not_live() -> anyhow::Result<()> {
    let env = OperatorEnv::start("silent").await?;
    let operator = env.start_operator(&[]).await?;
    env.create_secrets(REDIS).await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    let _hung = env.proxy.inject(|call| call.verb == "watch" && call.resource == "jobs", Fault::Hang);
    env.proxy.cut(|call| call.verb == "watch" && call.resource == "jobs");
    let since = Instant::now();
    assert_eq!(livez_status(&operator).await, 200);
    time_to_scale(&env, "main-api", 3).await?;
    eventually("/livez answers 503", TIMEOUT, async || Ok(livez_status(&operator).await == 503)).await?;
    println!("not live {:.1} s after a watch with a timeout of 10 s went silent", since.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn competing_writer_is_overwritten_with_few_writes() -> anyhow::Result<()> {
    const EDITS: usize = 40;
    let env = OperatorEnv::start("competing").await?;
    let _operator = env.start_operator(&[]).await?;
    env.create_secrets(REDIS).await?;
    let lifecycle = async {
        env.create_and_wait("main").await?;
        let before = env.snapshot().await?;
        env.proxy.clear_log();
        for edit in 0..EDITS {
            let image = format!("foreign:{edit}");
            let image = json!({ "spec": { "replicas": edit % 5, "template": { "spec": {
                "containers": [{ "name": "pulse", "image": image }] } } } });
            let (deployments, params) = (env.api::<Deployment>(), PatchParams::default());
            deployments.patch("main-api", &params, &Patch::Strategic(&image)).await?;
            let selector = json!({ "spec": { "selector": { "app.kubernetes.io/component": "none" } } });
            env.api::<Service>().patch("main-api", &params, &Patch::Merge(&selector)).await?;
            let status = json!({ "status": { "observedGeneration": 99, "workers": { "ready": edit } } });
            env.instances().patch_status("main", &params, &Patch::Merge(&status)).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let stopped = Instant::now();
        let same = async || Ok(env.snapshot().await? == before);
        // The operator has slowed down, and reports the fight until no client has changed the objects for a while.
        if let Err(error) = eventually("the objects are as before", TIMEOUT * 2, same).await {
            return Err(error.context(difference(&before, &env.snapshot().await?)));
        }
        let writes = env.proxy.count(|logged| logged.call.writes() && logged.call.resource != "leases");
        println!(
            "{writes} writes against {} foreign ones; repaired {:.1?} after the last",
            EDITS * 3,
            stopped.elapsed()
        );
        assert!(writes <= EDITS * 2, "{writes} writes");
        Ok(())
    };
    env.with_simulator(lifecycle).await
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_instance_disappears_from_the_metrics() -> anyhow::Result<()> {
    let env = OperatorEnv::start("deleted").await?;
    let operator = env.start_operator(&[]).await?;
    env.create_secrets(REDIS).await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    let has_metrics =
        async || Ok(Client::new(&operator.admin, "").get("/metrics").await?.text.contains("name=\"main\""));
    eventually("the instance has metrics", TIMEOUT, has_metrics).await?;
    env.instances().delete("main", &DeleteParams::default()).await?;
    env.collect_garbage().await?;
    eventually("the instance has no metrics", TIMEOUT, async || Ok(!has_metrics().await?)).await
}

/// Changes `api.replicas` and returns the time until the Deployment has the number.
async fn time_to_scale(env: &OperatorEnv, deployment: &str, replicas: i32) -> anyhow::Result<Duration> {
    let name = deployment.split('-').next().unwrap_or_default();
    let started = Instant::now();
    env.patch_spec(name, json!({ "api": { "replicas": replicas } })).await?;
    let scaled = async || Ok(env.replicas(deployment).await? == replicas);
    eventually(&format!("{deployment} has {replicas}"), Duration::from_secs(5), scaled).await?;
    Ok(started.elapsed())
}

async fn livez_status(operator: &OperatorProcess) -> u16 {
    Client::new(&operator.admin, "").get("/livez").await.map_or(0, |answer| answer.status)
}

/// A pseudo-random generator with a fixed seed, so that every run is the same.
struct Dice(Mutex<u64>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// True in `percent` of 100 calls.
    fn roll(&self, percent: u64) -> bool {
        let mut state = self.0.lock().expect("no holder of the lock panics");
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % 100 < percent
    }
}
