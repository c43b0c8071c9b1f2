//! An upgrade from the previous version: its processes run on this schema and its operator with this CRD; the processes of this
//! version wait for the schema. `make test-long` builds the previous version from the history.

#![expect(clippy::print_stdout, reason = "a test prints what it measures")]

use std::path::PathBuf;
use std::time::Duration;

use pulse_tests::operator::OperatorEnv;
use pulse_tests::{Process, TestEnv, eventually, load, report, repository, run, without_cargo_env};
use serde_json::json;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The last commit before Redis Sentinel and standbys of PostgreSQL, in place of a release.
const PREVIOUS: &str = "441fed35f48a4e385a0f45069790c27d0fdb1d6a";
const TIMEOUT: Duration = Duration::from_secs(60);
const RATE: u32 = 200;
const SECONDS: u32 = 12;

/// The binary of the previous version. It is built once.
async fn previous() -> anyhow::Result<PathBuf> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || {
        let target = repository().join("target/previous");
        let clone = tempfile::tempdir()?;
        let git = async |args: &[&str]| run(Command::new("git").current_dir(clone.path()).args(args)).await;
        git(&["clone", "--quiet", "--shared", repository().to_str().unwrap_or_default(), "."]).await?;
        git(&["checkout", "--quiet", PREVIOUS]).await?;
        let mut cargo = Command::new("cargo");
        cargo.current_dir(clone.path()).env("CARGO_TARGET_DIR", &target).env("CARGO_INCREMENTAL", "0");
        cargo.args(["build", "--quiet", "--locked", "--package", "pulse", "--bin", "pulse"]);
        run(without_cargo_env(&mut cargo)).await?;
        anyhow::Ok(target.join("debug/pulse"))
    };
    BUILT.get_or_try_init(build).await.cloned()
}

/// Ends a load run and checks that each event was processed once.
async fn ledger_is_right(env: &TestEnv, posting: tokio::process::Child) -> anyhow::Result<()> {
    let report = report(posting).await?;
    assert_eq!(report["refused"], json!({}), "{report}");
    env.wait_until_settled(TIMEOUT).await?;
    println!("{} events, each processed once", env.check_ledger("ledger").await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn previous_processes_run_on_this_schema_also_beside_those_of_this_version() -> anyhow::Result<()> {
    let (previous, mut env) = (previous().await?, TestEnv::start().await?);
    let current = std::mem::replace(&mut env.program, previous);
    let [api, mut worker, mut scheduler] = Process::start_all(&env).await?;
    let posting = load(&env, &api, RATE, SECONDS)?;
    let processed = async |at_least: i64| {
        let processed = async || Ok(env.number("SELECT count(*) FROM events WHERE processed").await? >= at_least);
        eventually("events are processed", TIMEOUT, processed).await
    };
    processed(500).await?;
    env.program = current;
    let [_api, _worker, _scheduler] = Process::start_all(&env).await?;
    worker.stop().await?;
    scheduler.stop().await?;
    ledger_is_right(&env, posting).await
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_on_the_previous_schema_wait_for_migrate_and_nothing_is_lost() -> anyhow::Result<()> {
    let (previous, mut env) = (previous().await?, TestEnv::unmigrated().await?);
    let current = std::mem::replace(&mut env.program, previous);
    env.migrate().await?;
    let [api, worker, scheduler] = Process::start_all(&env).await?;
    let posting = load(&env, &api, RATE, SECONDS)?;
    env.program = current;
    let mut waiting = Vec::new();
    for role in ["api", "worker", "scheduler"] {
        let process = Process::start_unready(&env, role, &[]).await?;
        let ready = process.admin().get("/readyz").await?;
        assert!(ready.status == 503 && ready.text.contains("pulse migrate"), "{role}: {}", ready.text);
        waiting.push(process);
    }
    let event = json!({ "event_name": "page_view", "event_type": "t" });
    let answer = waiting[0].client("ada").post("/api/v1/events", &event).await?;
    assert!(answer.status == 503 && answer.headers.contains_key("retry-after"), "{}", answer.text);

    env.migrate().await?;
    for process in &waiting {
        process.wait_until_ready().await?;
    }
    ledger_is_right(&env, posting).await?;
    drop((worker, scheduler));
    waiting[0].client("ada").post_event("page_view").await?;
    env.wait_until_settled(TIMEOUT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn previous_operator_works_with_this_crd() -> anyhow::Result<()> {
    let (previous, env) = (previous().await?, OperatorEnv::start("previous").await?);
    env.create_secrets("redis://127.0.0.1:1").await?;
    let _operator = env.start_operator_of(&previous, env.proxy.access(), &[])?;
    env.with_simulator(async {
        env.create_and_wait("main").await?;
        env.wait_for_condition("main", "CRDOutdated", "").await?;
        env.patch_spec("main", json!({ "api": { "replicas": 3 } })).await?;
        env.wait_until_reconciled("main", TIMEOUT).await
    })
    .await
}
