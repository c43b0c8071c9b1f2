//! Builds inside of tests.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::{repository, run};

/// Keeps from a command what the test's own cargo says of the test: crates whose scripts ask for it would be built again,
/// and all that depends on them.
pub fn forget_cargo(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_")) {
            command.env_remove(name);
        }
    }
    command
}

/// A target folder for a copy of the sources, with everything in it that is not of this workspace. Cargo takes the crates
/// of a copy for those of the original: in one folder they would be mixed up.
///
/// # Errors
/// If it cannot be copied.
pub async fn target_of_copy(folder: &Path) -> anyhow::Result<PathBuf> {
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
