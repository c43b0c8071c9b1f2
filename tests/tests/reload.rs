//! `--dev-reload`: a role replaces itself with a newer build in the same process.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use pulse_tests::{Process, TestEnv, binary, eventually};
use serde_json::json;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Path for the builds of a role, in a new folder.
fn build_path(env: &TestEnv, role: &str) -> anyhow::Result<PathBuf> {
    let folder = env.file(&format!("{role}-builds"));
    fs::create_dir(&folder)?;
    Ok(folder.join("pulse"))
}

/// Writes the current binary to `file` as `tar` does: it removes the old file and then writes the new one.
fn install_build(file: &Path) -> anyhow::Result<()> {
    install_bytes(file, &fs::read(binary())?)
}

fn install_bytes(file: &Path, program: &[u8]) -> anyhow::Result<()> {
    if file.exists() {
        fs::remove_file(file)?;
    }
    let mut new = fs::OpenOptions::new().create_new(true).write(true).mode(0o755).open(file)?;
    Ok(new.write_all(program)?)
}

/// Path of the program that the process runs.
fn running_program(role: &Process) -> anyhow::Result<PathBuf> {
    let pid = role.pid().context("the role runs")?;
    Ok(fs::read_link(format!("/proc/{pid}/exe"))?)
}

async fn wait_for_program(role: &Process, file: &Path) -> anyhow::Result<()> {
    eventually("the role runs the newer build", TIMEOUT, async || Ok(running_program(role)? == file)).await?;
    let admin = role.admin();
    let ready = async || Ok(admin.get("/readyz").await.is_ok_and(|answer| answer.status == 200));
    eventually("the role is ready", TIMEOUT, ready).await
}

fn event(name: &str) -> serde_json::Value {
    json!({ "event_name": name, "event_type": "test", "payload": {} })
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_reload_replaces_the_running_build_in_the_same_process() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut roles = Vec::new();
    for role in ["api", "worker", "scheduler"] {
        let file = build_path(&env, role)?;
        let process = Process::start(&env, role, &["--dev-reload", file.to_str().context("a path")?]).await?;
        roles.push((process, file));
    }
    let (api, _) = &roles[0];
    let client = api.client("ada");
    assert_eq!(client.post("/api/v1/events", &event("sleep:1000")).await?.status, 202);
    for (role, file) in &roles {
        assert_eq!(running_program(role)?, binary());
        let pid = role.pid();
        install_build(file)?;
        wait_for_program(role, file).await?;
        // The newer build can be replaced in turn.
        install_build(file)?;
        let replaced = async || {
            let log = fs::read_to_string(&role.log)?;
            Ok(log.matches("stopping to run a newer build").count() == 2)
        };
        eventually("the role reloads again", TIMEOUT, replaced).await?;
        wait_for_program(role, file).await?;
        assert_eq!(role.pid(), pid);
    }
    assert_eq!(client.post("/api/v1/events", &event("page_view")).await?.status, 202);
    let processed = async || Ok(env.number("SELECT count(*) FROM events WHERE processed").await? == 2);
    eventually("both events are processed", TIMEOUT, processed).await?;
    let repeated = "SELECT count(*) FROM task_history WHERE attempts <> 1";
    assert_eq!(env.number(repeated).await?, 0, "an attempt was interrupted");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_reload_ignores_builds_that_cannot_start() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let file = build_path(&env, "api")?;
    let api = Process::start(&env, "api", &["--dev-reload", file.to_str().context("a path")?]).await?;
    let whole = fs::read(binary())?;
    let broken: [&[u8]; 3] = [b"#!/bin/false\n", b"not a program", &whole[..whole.len() / 3]];
    for (number, broken) in broken.into_iter().enumerate() {
        install_bytes(&file, broken)?;
        let refused = async || {
            let log = fs::read_to_string(&api.log)?;
            Ok(log.matches("cannot start the newer build").count() > number)
        };
        eventually("the role logs the refusal", TIMEOUT, refused).await?;
    }
    assert_eq!(running_program(&api)?, binary());
    assert_eq!(api.client("ada").post("/api/v1/events", &event("page_view")).await?.status, 202);
    install_build(&file)?;
    wait_for_program(&api, &file).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_reload_starts_as_an_existing_newer_build() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let file = build_path(&env, "api")?;
    install_build(&file)?;
    let flag = ["--dev-reload", file.to_str().context("a path")?];
    assert_eq!(running_program(&Process::start(&env, "api", &flag).await?)?, file);
    // A broken build does not prevent the start.
    install_bytes(&file, b"not a program")?;
    assert_eq!(running_program(&Process::start(&env, "api", &flag).await?)?, binary());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_reload_is_cancelled_by_sigterm() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let file = build_path(&env, "worker")?;
    let mut worker = Process::start(&env, "worker", &["--dev-reload", file.to_str().context("a path")?]).await?;
    assert_eq!(api.client("ada").post("/api/v1/events", &event("sleep:3000")).await?.status, 202);
    let claimed = async || Ok(env.number("SELECT count(*) FROM tasks WHERE worker IS NOT NULL").await? == 1);
    eventually("the task runs", TIMEOUT, claimed).await?;
    install_build(&file)?;
    let draining = async || Ok(fs::read_to_string(&worker.log)?.contains("stopping to run a newer build"));
    eventually("the worker drains", TIMEOUT, draining).await?;
    assert_eq!(worker.stop().await?, 0);
    assert_eq!(env.number("SELECT count(*) FROM task_history WHERE outcome = 'completed'").await?, 1);
    Ok(())
}
