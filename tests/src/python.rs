//! Pinned tools and libraries from PyPI, each in a separate virtual environment.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;

/// Time for a command, which may be a build or an installation.
const RUN_TIMEOUT: Duration = Duration::from_secs(1800);

/// Root folder of the repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// Path of the tool `name` in this version. Installs it below `.cache` if it is missing or has another version.
///
/// # Errors
/// If the tool cannot be installed.
pub async fn python_tool(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let tool = environment(name).join("bin").join(name);
    let installed = Command::new(&tool).arg("--version").output().await;
    if !installed.is_ok_and(|output| output.status.success() && printed(&output).contains(version)) {
        install(name, version).await?;
    }
    Ok(tool)
}

/// Path of a Python interpreter with the library `name` in this version. Installs it as [`python_tool`] does.
///
/// # Errors
/// If the library cannot be installed.
pub async fn python_with(name: &str, version: &str) -> anyhow::Result<PathBuf> {
    let python = environment(name).join("bin/python");
    let is_installed = format!("import importlib.metadata as m; assert m.version({name:?}) == {version:?}");
    let installed = Command::new(&python).args(["-c", &is_installed]).output().await;
    if !installed.is_ok_and(|output| output.status.success()) {
        install(name, version).await?;
    }
    Ok(python)
}

/// Path of a Python interpreter with the packages of a requirements file, which has their hashes. Installs them below
/// `.cache` if the file has changed.
///
/// # Errors
/// If the packages cannot be installed.
pub async fn python_with_requirements(file: &str) -> anyhow::Result<PathBuf> {
    let file = repository().join(file);
    let folder = environment(&file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy());
    let (python, installed) = (folder.join("bin/python"), folder.join("installed.txt"));
    if std::fs::read(&installed).ok() != Some(std::fs::read(&file)?) {
        create_environment(&folder).await?;
        let install = ["-m", "pip", "install", "--quiet", "--require-hashes", "-r"];
        run(Command::new(&python).args(install).arg(&file)).await?;
        std::fs::copy(&file, &installed)?;
    }
    Ok(python)
}

fn environment(name: &str) -> PathBuf {
    repository().join(".cache").join(name)
}

async fn install(name: &str, version: &str) -> anyhow::Result<()> {
    let folder = environment(name);
    create_environment(&folder).await?;
    let package = format!("{name}=={version}");
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", &package])).await.map(drop)
}

async fn create_environment(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder)).await.map(drop)
}

/// Runs a command to completion and returns stdout followed by stderr.
///
/// # Errors
/// If the command cannot be started, fails, or runs for longer than 30 minutes; the error includes its output.
pub async fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = tokio::time::timeout(RUN_TIMEOUT, command.kill_on_drop(true).output()).await;
    let output = output.with_context(|| format!("{command:?} did not end"))?;
    let output = output.with_context(|| format!("cannot start {command:?}"))?;
    let text = printed(&output);
    anyhow::ensure!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    Ok(text)
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}
