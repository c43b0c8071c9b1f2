//! Packages from npm, pinned with their checksums.

use std::path::PathBuf;

use tokio::process::Command;

use crate::python::{repository, run};

/// Path of `node_modules` with the packages of a folder's `package-lock.json`, which has their checksums. Installs them below
/// `.cache` if the file has changed.
///
/// # Errors
/// If the packages cannot be installed.
pub async fn npm_packages(folder: &str) -> anyhow::Result<PathBuf> {
    let source = repository().join(folder);
    let target = repository().join(".cache").join(source.file_name().unwrap_or_default());
    let (lock, installed) = (source.join("package-lock.json"), target.join("installed.json"));
    if std::fs::read(&installed).ok() != Some(std::fs::read(&lock)?) {
        std::fs::create_dir_all(&target)?;
        for file in ["package.json", "package-lock.json"] {
            std::fs::copy(source.join(file), target.join(file))?;
        }
        let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run(Command::new("npm").args(install).current_dir(&target)).await?;
        std::fs::copy(&lock, &installed)?;
    }
    Ok(target.join("node_modules"))
}
