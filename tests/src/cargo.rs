//! `cargo build` from inside a test.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::python::{repository, run};

/// Removes the variables that cargo sets for the running test from a command's environment. Crates whose build scripts
/// read them would be rebuilt, and so would everything that depends on them.
pub fn without_cargo_env(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_")) {
            command.env_remove(name);
        }
    }
    command
}

/// Creates `folder/target` for a copy of the sources. It has this workspace's compiled dependencies but not its crates.
/// Cargo cannot tell the crates of a copy from the originals, so the two must not share a target folder.
///
/// # Errors
/// If the dependencies cannot be copied.
pub async fn target_dir_for_copy(folder: &Path) -> anyhow::Result<PathBuf> {
    let target = folder.join("target");
    let script = r#"[ ! -d "$1" ] && [ -d "$2/debug/deps" ] || exit 0
        mkdir -p "$1/debug/deps"
        cp -a "$2"/debug/build "$2"/debug/.fingerprint "$1/debug"
        find "$2/debug/deps" -maxdepth 1 -type f -name '*.*' ! -name 'libpulse*' -exec cp -a -t "$1/debug/deps" {} +"#;
    let mut copy = Command::new("bash");
    copy.args(["-euc", script, "copy"]).arg(&target).arg(repository().join("target"));
    run(&mut copy).await?;
    Ok(target)
}
