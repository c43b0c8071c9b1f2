//! Programs, ports and signals of this machine.

use std::path::PathBuf;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

/// Path of the binary under test, next to the test's own executable.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let folder = test.ancestors().nth(2).unwrap_or(&test);
    folder.join("pulse-under-test")
}

/// A free TCP port on 127.0.0.1. Another process may take it before the caller binds it.
///
/// # Errors
/// If no port is free.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Sends a signal to a child process.
///
/// # Errors
/// If the process has ended.
pub fn send_signal(pid: Option<u32>, signal: Signal) -> anyhow::Result<()> {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).context("the process has ended")?;
    Ok(kill_process(pid, signal)?)
}
