//! Paths of the Kubernetes programs.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::python::repository;

/// Folders with a set of programs. Builds missing programs first.
async fn folders(set: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut command = Command::new(repository().join("scripts/kube-tools"));
    // Building takes minutes: progress goes to the terminal through stderr, and stdout has the folders.
    command.arg(set).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await.context("cannot start scripts/kube-tools")?;
    anyhow::ensure!(output.status.success(), "scripts/kube-tools {set} failed");
    let printed = String::from_utf8(output.stdout)?;
    Ok(std::env::split_paths(printed.trim()).collect())
}

fn find(folders: &[PathBuf], name: &str) -> anyhow::Result<PathBuf> {
    let mut candidates = folders.iter().map(|folder| folder.join(name));
    candidates.find(|path| path.is_file()).with_context(|| format!("scripts/kube-tools did not build {name}"))
}

/// Path of a program of the control plane.
///
/// # Errors
/// If the program was not built.
pub async fn program(name: &str) -> anyhow::Result<PathBuf> {
    static FOLDERS: OnceCell<Vec<PathBuf>> = OnceCell::const_new();
    find(FOLDERS.get_or_try_init(async || folders("control-plane").await).await?, name)
}

/// Path of a program that checks a protocol, such as h2spec.
///
/// # Errors
/// If the program was not built.
pub async fn protocol_program(name: &str) -> anyhow::Result<PathBuf> {
    static FOLDERS: OnceCell<Vec<PathBuf>> = OnceCell::const_new();
    find(FOLDERS.get_or_try_init(async || folders("protocol").await).await?, name)
}

/// Path of a program that checks the packaging, such as Helm.
///
/// # Errors
/// If the program was not built.
pub async fn packaging_program(name: &str) -> anyhow::Result<PathBuf> {
    static FOLDERS: OnceCell<Vec<PathBuf>> = OnceCell::const_new();
    find(FOLDERS.get_or_try_init(async || folders("packaging").await).await?, name)
}

/// Path of a server that stores objects.
///
/// # Errors
/// If the program was not built.
pub(crate) async fn storage_program(name: &str) -> anyhow::Result<PathBuf> {
    static FOLDERS: OnceCell<Vec<PathBuf>> = OnceCell::const_new();
    find(FOLDERS.get_or_try_init(async || folders("storage").await).await?, name)
}
