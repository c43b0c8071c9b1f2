//! Where the programs of Kubernetes are.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::repository;

/// The folders that hold a set of programs, which are built first if they are missing.
async fn folders(set: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut command = Command::new(repository().join("scripts/kube-tools"));
    // Building takes minutes: what it says goes to the terminal, and only the folders to us.
    command.arg(set).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await.context("cannot start scripts/kube-tools")?;
    anyhow::ensure!(output.status.success(), "scripts/kube-tools {set} failed");
    let printed = String::from_utf8(output.stdout)?;
    Ok(std::env::split_paths(printed.trim()).collect())
}

fn find(folders: &[PathBuf], name: &str) -> anyhow::Result<PathBuf> {
    let mut candidates = folders.iter().map(|folder| folder.join(name));
    candidates.find(|path| path.is_file()).with_context(|| format!("{name} is not among what scripts/kube-tools built"))
}

/// The path of a program of the control plane.
///
/// # Errors
/// If it was not built.
pub async fn program(name: &str) -> anyhow::Result<PathBuf> {
    static FOLDERS: OnceCell<Vec<PathBuf>> = OnceCell::const_new();
    find(FOLDERS.get_or_try_init(async || folders("control-plane").await).await?, name)
}

/// The path of a program that packaging is checked with.
///
/// # Errors
/// If it was not built.
pub async fn packaging_program(name: &str) -> anyhow::Result<PathBuf> {
    static FOLDERS: OnceCell<Vec<PathBuf>> = OnceCell::const_new();
    find(FOLDERS.get_or_try_init(async || folders("packaging").await).await?, name)
}
