//! Programs, ports and signals of this machine.

use std::net::{TcpListener, UdpSocket};
use std::ops::Range;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

/// Path of the binary under test, next to the test's own executable.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let folder = test.ancestors().nth(2).unwrap_or(&test);
    folder.join("pulse-under-test")
}

/// A free TCP port on 127.0.0.1 that no other test of this machine gets while this process runs.
///
/// # Errors
/// If no port is free.
pub fn free_port() -> anyhow::Result<u16> {
    // Below the ports of outgoing connections, which could take the port before the caller binds it.
    const PORTS: Range<u32> = 10_000..30_000;
    /// UDP sockets with the numbers in use: they reserve them among processes, and leave the TCP ports free.
    static RESERVED: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let is_free = |port: &u16| {
        let Ok(reservation) = UdpSocket::bind(("127.0.0.1", *port)) else { return false };
        RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
        TcpListener::bind(("127.0.0.1", *port)).is_ok()
    };
    let first = std::process::id().wrapping_mul(101);
    let number = |offset: u32| PORTS.start + first.wrapping_add(offset) % (PORTS.end - PORTS.start);
    let mut ports = (0..PORTS.end - PORTS.start).filter_map(|offset| u16::try_from(number(offset)).ok());
    ports.find(is_free).context("no port is free")
}

/// Sends a signal to a child process.
///
/// # Errors
/// If the process has ended.
pub fn send_signal(pid: Option<u32>, signal: Signal) -> anyhow::Result<()> {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).context("the process has ended")?;
    Ok(kill_process(pid, signal)?)
}

/// The command `outer` with a command as its last arguments, which it runs with the same environment.
pub(crate) fn run_through(mut outer: Command, inner: &Command) -> Command {
    let inner = inner.as_std();
    outer.arg(inner.get_program()).args(inner.get_args()).kill_on_drop(true).stdin(Stdio::null());
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer
}

/// CPU time of a process, in seconds, at 100 clock ticks per second.
///
/// # Errors
/// If there is no such process.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: f64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

/// Path of libfaketime, which shifts the clock of a program that loads it.
///
/// # Errors
/// If it is not installed.
pub fn libfaketime() -> anyhow::Result<String> {
    let folders = std::fs::read_dir("/usr/lib")?.filter_map(Result::ok).map(|entry| entry.path());
    let library = folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|library| library.exists());
    Ok(library.context("on Debian, run `apt-get install faketime`")?.to_string_lossy().into_owned())
}
