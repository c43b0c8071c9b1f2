//! Builds inside of tests.

use tokio::process::Command;

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
