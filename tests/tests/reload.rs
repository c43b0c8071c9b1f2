//! `--dev-reload`: a role goes on as a newer build of itself, in the same process.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use pulse_tests::{Process, TestEnv, binary, eventually};
use serde_json::json;

const SOON: Duration = Duration::from_secs(20);

/// Where builds are put, in a folder of its own.
fn place(world: &TestEnv, role: &str) -> anyhow::Result<PathBuf> {
    let folder = world.file(&format!("{role}-builds"));
    fs::create_dir(&folder)?;
    Ok(folder.join("pulse"))
}

/// Puts a build there as `tar` does: the file before is removed, and the new one grows.
fn put(file: &Path) -> anyhow::Result<()> {
    put_bytes(file, &fs::read(binary())?)
}

fn put_bytes(file: &Path, program: &[u8]) -> anyhow::Result<()> {
    if file.exists() {
        fs::remove_file(file)?;
    }
    let mut new = fs::OpenOptions::new().create_new(true).write(true).mode(0o755).open(file)?;
    Ok(new.write_all(program)?)
}

/// The program that the process is now.
fn program(role: &Process) -> anyhow::Result<PathBuf> {
    let pid = role.pid().context("the role runs")?;
    Ok(fs::read_link(format!("/proc/{pid}/exe"))?)
}

async fn becomes(role: &Process, file: &Path) -> anyhow::Result<()> {
    eventually("the role is the newer build", SOON, async || Ok(program(role)? == file)).await?;
    let admin = role.admin();
    let ready = async || Ok(admin.get("/readyz").await.is_ok_and(|answer| answer.status == 200));
    eventually("it is ready", SOON, ready).await
}

fn event(name: &str) -> serde_json::Value {
    json!({ "event_name": name, "event_type": "test", "payload": {} })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_goes_on_as_a_newer_build_in_the_same_process() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let mut roles = Vec::new();
    for role in ["api", "worker", "scheduler"] {
        let file = place(&world, role)?;
        let process = Process::start(&world, role, &["--dev-reload", file.to_str().context("a path")?]).await?;
        roles.push((process, file));
    }
    let (api, _) = &roles[0];
    let client = api.client("ada");
    assert_eq!(client.post("/api/v1/events", &event("sleep:1000")).await?.status, 202);
    for (role, file) in &roles {
        assert_eq!(program(role)?, binary());
        let pid = role.pid();
        put(file)?;
        becomes(role, file).await?;
        // What runs now can be replaced as well.
        put(file)?;
        let replaced = async || {
            let log = fs::read_to_string(&role.log)?;
            Ok(log.matches("to go on as a newer build").count() == 2)
        };
        eventually("it stops once more", SOON, replaced).await?;
        becomes(role, file).await?;
        assert_eq!(role.pid(), pid);
    }
    assert_eq!(client.post("/api/v1/events", &event("page_view")).await?.status, 202);
    let processed = async || Ok(world.number("SELECT count(*) FROM events WHERE processed").await? == 2);
    eventually("both events are processed", SOON, processed).await?;
    let again = "SELECT count(*) FROM task_history WHERE attempts <> 1";
    assert_eq!(world.number(again).await?, 0, "no attempt was cut off");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_cannot_be_started_changes_nothing() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let file = place(&world, "api")?;
    let api = Process::start(&world, "api", &["--dev-reload", file.to_str().context("a path")?]).await?;
    let whole = fs::read(binary())?;
    let broken: [&[u8]; 3] = [b"#!/bin/false\n", b"no program at all", &whole[..whole.len() / 3]];
    for (number, broken) in broken.into_iter().enumerate() {
        put_bytes(&file, broken)?;
        let refused = async || {
            let log = fs::read_to_string(&api.log)?;
            Ok(log.matches("this build cannot be started").count() > number)
        };
        eventually("it says why", SOON, refused).await?;
    }
    assert_eq!(program(&api)?, binary());
    assert_eq!(api.client("ada").post("/api/v1/events", &event("page_view")).await?.status, 202);
    put(&file)?;
    becomes(&api, &file).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_starts_beside_a_newer_build_is_that_build() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let file = place(&world, "api")?;
    put(&file)?;
    let flag = ["--dev-reload", file.to_str().context("a path")?];
    assert_eq!(program(&Process::start(&world, "api", &flag).await?)?, file);
    // A broken one does not keep it from starting.
    put_bytes(&file, b"no program at all")?;
    assert_eq!(program(&Process::start(&world, "api", &flag).await?)?, binary());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_role_that_is_about_to_go_on() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let file = place(&world, "worker")?;
    let mut worker = Process::start(&world, "worker", &["--dev-reload", file.to_str().context("a path")?]).await?;
    assert_eq!(api.client("ada").post("/api/v1/events", &event("sleep:3000")).await?.status, 202);
    let claimed = async || Ok(world.number("SELECT count(*) FROM tasks WHERE worker IS NOT NULL").await? == 1);
    eventually("the task runs", SOON, claimed).await?;
    put(&file)?;
    let draining = async || Ok(fs::read_to_string(&worker.log)?.contains("to go on as a newer build"));
    eventually("the worker drains", SOON, draining).await?;
    assert_eq!(worker.stop().await?, 0);
    assert_eq!(world.number("SELECT count(*) FROM task_history WHERE outcome = 'completed'").await?, 1);
    Ok(())
}
