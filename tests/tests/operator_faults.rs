//! An API server that is late, forgets, refuses, hangs, or is written to by somebody else.

#![expect(clippy::print_stdout, reason = "what was measured is worth a look")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use pulse_tests::cluster::{Call, Fault};
use pulse_tests::operator::{OperatorEnv, OperatorProcess, SOON};
use pulse_tests::snapshot::difference;
use pulse_tests::{Client, eventually};
use serde_json::json;

const REDIS: &str = "redis://127.0.0.1:1";

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_are_five_seconds_late_make_no_second_job() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("stale").await?;
    let _late = bench.proxy.inject(|call| call.verb == "watch", Fault::Stale(Duration::from_secs(5)));
    let _operator = bench.operator(&[]).await?;
    bench.secrets(REDIS).await?;
    let life = async {
        bench.create("main", json!({})).await?;
        bench.settles("main", SOON * 3).await?;
        bench.change("main", json!({ "image": { "tag": "0.2.0" }, "api": { "replicas": 3 } })).await?;
        bench.settles("main", SOON * 3).await
    };
    bench.served(life).await?;
    assert_eq!(bench.image("main-api").await?, "localhost/pulse:0.2.0");
    assert_eq!(bench.replicas("main-api").await?, 3);
    assert_eq!(bench.all::<Job>().list(&ListParams::default()).await?.items.len(), 2, "one for each version");
    for (resource, expected) in [("jobs", 2), ("deployments", 3)] {
        let created = |code| {
            bench.proxy.count(|logged| {
                logged.call.verb == "create" && logged.call.resource == resource && logged.status == Some(code)
            })
        };
        assert_eq!(created(201), expected, "{resource}");
        println!("{resource}: created {}, found to be there {}", created(201), created(409));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_watch_missed_or_told_twice_is_made_good() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("missed").await?;
    let _operator = bench.operator(&[]).await?;
    bench.secrets(REDIS).await?;
    let life = async {
        bench.create("main", json!({})).await?;
        bench.settles("main", SOON).await?;
        let before = bench.snapshot().await?;

        // While nothing can be watched, things change; then history is gone.
        let deaf = bench.proxy.inject(|call| matches!(call.verb.as_str(), "watch" | "list"), Fault::Close);
        bench.proxy.cut(|call| call.verb == "watch");
        bench.all::<Deployment>().delete("main-worker", &DeleteParams::background()).await?;
        bench.all::<Service>().delete("main-api", &DeleteParams::background()).await?;
        let image =
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": "pulse", "image": "x" }] } } } });
        let patch = Patch::Strategic(&image);
        bench.all::<Deployment>().patch("main-api", &PatchParams::default(), &patch).await?;
        let gone = bench.proxy.inject_times(7, |call| call.verb == "watch", Fault::Expired);
        drop(deaf);
        let same = async || Ok(bench.snapshot().await? == before);
        if let Err(error) = eventually("all is as before", SOON * 2, same).await {
            return Err(error.context(difference(&before, &bench.snapshot().await?)));
        }
        eventually("history was gone", SOON, async || Ok(gone.hits() == 7)).await?;

        // Every watch breaks again and again, and tells what it told before.
        let cut = Fault::Cut(Duration::from_millis(200));
        let broken = bench.proxy.inject(|call| call.verb == "watch", cut);
        bench.proxy.cut(|call| call.verb == "watch");
        bench.change("main", json!({ "image": { "tag": "0.2.0" } })).await?;
        bench.settles("main", SOON * 2).await?;
        eventually("watches broke", SOON, async || Ok(broken.hits() > 14)).await
    };
    bench.served(life).await?;
    let jobs = bench
        .proxy
        .count(|logged| logged.call.verb == "create" && logged.call.resource == "jobs" && logged.status == Some(201));
    assert_eq!(jobs, 2, "one Job for each version");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn random_faults_leave_nothing_behind() -> anyhow::Result<()> {
    const OBJECTS: usize = 5;
    let wanted = if cfg!(feature = "long") { 10_000 } else { 200 };
    let bench = OperatorEnv::start("random").await?;
    bench.secrets(REDIS).await?;
    let kinds = [Fault::Answer(500), Fault::Answer(429), Fault::Close, Fault::LoseAnswer, Fault::Answer(409)];
    let faults: Vec<_> = kinds
        .into_iter()
        .zip(1..)
        .map(|(fault, seed)| {
            let dice = Dice::new(seed);
            // A conflict about the Lease means that another one leads, which is no fault.
            let spared = fault == Fault::Answer(409);
            bench.proxy.inject(move |call| !(spared && call.resource == "leases") && dice.shows(2), fault)
        })
        .collect();
    let operator = tokio::sync::Mutex::new(bench.operator(&[]).await?);
    // Whoever loses the lead ends, and is started again, as Kubernetes would.
    let restarted = async {
        loop {
            let mut running = operator.lock().await;
            if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(50), running.ended()).await {
                *running = bench.operator(&[]).await?;
            }
            drop(running);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let life = async {
        for number in 0..OBJECTS {
            bench.create(&format!("o{number}"), json!({})).await?;
        }
        // Of the operators that ended, and of the one that runs.
        let (mut ended, mut running) = (0, 0);
        for round in 1.. {
            for number in 0..OBJECTS {
                let spec = json!({ "api": { "replicas": 1 + (round + number) % 4 }, "workers": { "replicas": 1 + round % 3 } });
                bench.change(&format!("o{number}"), spec).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let now = operator.lock().await.reconciles().await;
            if now < running {
                ended += running;
            }
            running = now;
            if ended + running >= wanted {
                println!("{} reconciles in {round} rounds", ended + running);
                break;
            }
        }
        for number in 0..OBJECTS {
            let spec = json!({ "image": { "tag": "0.2.0" }, "api": { "replicas": 2 }, "workers": { "replicas": 4 } });
            bench.change(&format!("o{number}"), spec).await?;
        }
        let hits: usize = faults.iter().map(pulse_tests::cluster::Injected::hits).sum();
        let calls = bench.proxy.log().len();
        drop(faults);
        let stopped = Instant::now();
        for number in 0..OBJECTS {
            let name = format!("o{number}");
            bench.settles(&name, Duration::from_secs(60).saturating_sub(stopped.elapsed())).await?;
            assert_eq!(bench.replicas(&format!("{name}-api")).await?, 2);
            assert_eq!(bench.replicas(&format!("{name}-worker")).await?, 4);
            assert_eq!(bench.image(&format!("{name}-worker")).await?, "localhost/pulse:0.2.0");
        }
        println!("{hits} of {calls} calls failed; all settled in {:.1} s", stopped.elapsed().as_secs_f64());
        Ok(())
    };
    tokio::select! {
        result = bench.served(life) => result,
        never = restarted => never,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_served_holds_up_no_other() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("blocked").await?;
    let operator = bench.operator(&[]).await?;
    bench.secrets(REDIS).await?;
    bench.secret("hanging", "uri", "postgres://x").await?;
    let life = async {
        let other = json!({ "database": { "urlSecretRef": { "name": "hanging" } } });
        bench.create("one", other).await?;
        bench.create("two", json!({})).await?;
        bench.settles("one", SOON).await?;
        bench.settles("two", SOON).await?;
        let baseline = scaled(&bench, "two-api", 3).await?;

        let hung = bench.proxy.inject(|call| call.verb == "get" && call.name == "hanging", Fault::Hang);
        eventually("a GET hangs", SOON, async || Ok(hung.hits() > 0)).await?;
        let with_hung_get = scaled(&bench, "two-api", 4).await?;
        drop(hung);

        let refused = |call: &Call| call.verb == "patch" && call.resource == "deployments" && call.name == "one-api";
        let forbidden = bench.proxy.inject(refused, Fault::Answer(403));
        bench.change("one", json!({ "auth": { "issuer": "somebody" } })).await?;
        bench.reaches("one", "Ready", "False/ReconcileFailed").await?;
        let with_forbidden = scaled(&bench, "two-api", 5).await?;
        drop(forbidden);
        bench.settles("one", SOON).await?;
        println!("scaled after {baseline:.2?}, with a hung GET {with_hung_get:.2?}, with a 403 {with_forbidden:.2?}");
        Ok(())
    };
    bench.served(life).await?;
    assert_eq!(live(&operator).await, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_hears_nothing_is_not_live() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("deaf").await?;
    let operator = bench.operator(&[]).await?;
    bench.secrets(REDIS).await?;
    bench.served(bench.installed_by_itself("main")).await?;
    let _hung = bench.proxy.inject(|call| call.verb == "watch" && call.resource == "jobs", Fault::Hang);
    bench.proxy.cut(|call| call.verb == "watch" && call.resource == "jobs");
    let since = Instant::now();
    assert_eq!(live(&operator).await, 200);
    scaled(&bench, "main-api", 3).await?;
    eventually("it is not live", SOON, async || Ok(live(&operator).await == 503)).await?;
    println!("not live {:.1} s after a watch of 10 s went silent", since.elapsed().as_secs_f64());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_does_not_start_a_war() -> anyhow::Result<()> {
    const EDITS: usize = 40;
    let bench = OperatorEnv::start("war").await?;
    let _operator = bench.operator(&[]).await?;
    bench.secrets(REDIS).await?;
    let life = async {
        bench.installed_by_itself("main").await?;
        let before = bench.snapshot().await?;
        bench.proxy.clear_log();
        for edit in 0..EDITS {
            let image = format!("theirs:{edit}");
            let image = json!({ "spec": { "replicas": edit % 5, "template": { "spec": {
                "containers": [{ "name": "pulse", "image": image }] } } } });
            let (deployments, params) = (bench.all::<Deployment>(), PatchParams::default());
            deployments.patch("main-api", &params, &Patch::Strategic(&image)).await?;
            let selector = json!({ "spec": { "selector": { "app.kubernetes.io/component": "nobody" } } });
            bench.all::<Service>().patch("main-api", &params, &Patch::Merge(&selector)).await?;
            let status = json!({ "status": { "observedGeneration": 99, "workers": { "ready": edit } } });
            bench.instances().patch_status("main", &params, &Patch::Merge(&status)).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let stopped = Instant::now();
        let same = async || Ok(bench.snapshot().await? == before);
        if let Err(error) = eventually("all is as before", SOON, same).await {
            return Err(error.context(difference(&before, &bench.snapshot().await?)));
        }
        let writes = bench.proxy.count(|logged| logged.call.writes() && logged.call.resource != "leases");
        println!("{writes} writes against {} of theirs; repaired {:.1?} after the last", EDITS * 3, stopped.elapsed());
        assert!(writes <= EDITS * 6, "{writes} writes");
        Ok(())
    };
    bench.served(life).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_gone_is_forgotten() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("forgotten").await?;
    let operator = bench.operator(&[]).await?;
    bench.secrets(REDIS).await?;
    bench.served(bench.installed_by_itself("main")).await?;
    let told = async || Ok(Client::new(&operator.admin, "").get("/metrics").await?.text.contains("name=\"main\""));
    eventually("its numbers are told", SOON, told).await?;
    bench.instances().delete("main", &DeleteParams::default()).await?;
    bench.collect_garbage().await?;
    eventually("nothing is told of it any more", SOON, async || Ok(!told().await?)).await
}

/// How long it takes from a change of `api.replicas` until the Deployment has it.
async fn scaled(bench: &OperatorEnv, deployment: &str, replicas: i32) -> anyhow::Result<Duration> {
    let name = deployment.split('-').next().unwrap_or_default();
    let started = Instant::now();
    bench.change(name, json!({ "api": { "replicas": replicas } })).await?;
    let scaled = async || Ok(bench.replicas(deployment).await? == replicas);
    eventually(&format!("{deployment} has {replicas}"), Duration::from_secs(5), scaled).await?;
    Ok(started.elapsed())
}

async fn live(operator: &OperatorProcess) -> u16 {
    Client::new(&operator.admin, "").get("/livez").await.map_or(0, |answer| answer.status)
}

/// Chance that is the same in every run.
struct Dice(Mutex<u64>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// True in so many of a hundred cases.
    fn shows(&self, percent: u64) -> bool {
        let mut state = self.0.lock().expect("nobody panics here");
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % 100 < percent
    }
}
