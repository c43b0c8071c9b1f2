//! Tools and libraries from PyPI, each pinned, in a virtual environment of its own.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::Context;
use tokio::process::Command;
use tokio::sync::Mutex;

/// The root of the repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// The path of the tool `name` of this version, installed below `.cache` unless it is there already.
///
/// # Errors
/// If it cannot be installed.
pub async fn python_tool(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let tool = environment(name).join("bin").join(name);
    let installed = Command::new(&tool).arg("--version").output().await;
    if !installed.is_ok_and(|output| output.status.success() && printed(&output).contains(version)) {
        install(name, version).await?;
    }
    Ok(tool)
}

/// The path of a Python that has the library `name` of this version, installed as a tool is.
///
/// # Errors
/// If it cannot be installed.
pub async fn python_with(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    /// Two tests of one binary may want the same.
    static INSTALLING: Mutex<()> = Mutex::const_new(());
    let _alone = INSTALLING.lock().await;
    let python = environment(name).join("bin/python");
    let is_installed = format!("import importlib.metadata as m; assert m.version({name:?}) == {version:?}");
    let installed = Command::new(&python).args(["-c", &is_installed]).output().await;
    if !installed.is_ok_and(|output| output.status.success()) {
        install(name, version).await?;
    }
    Ok(python)
}

fn environment(name: &str) -> PathBuf {
    repository().join(".cache").join(name)
}

async fn install(name: &str, version: &str) -> anyhow::Result<()> {
    let folder = environment(name);
    std::fs::create_dir_all(&folder)?;
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).await?;
    let package = format!("{name}=={version}");
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", &package])).await.map(drop)
}

/// Runs a command to its end; returns everything that it printed.
///
/// # Errors
/// If it cannot be started or fails: with everything that it printed.
pub async fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.kill_on_drop(true).output().await.with_context(|| format!("cannot start {command:?}"))?;
    let text = printed(&output);
    anyhow::ensure!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    Ok(text)
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}
