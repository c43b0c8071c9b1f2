//! Servers that a test starts beside PostgreSQL and Redis.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::env::TestEnv;
use crate::wait::eventually;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Starts a program of the Debian package with the same name, or one with a path, and waits until it accepts connections on `port` of 127.0.0.1. It is
/// killed when the returned value is dropped, and with the test. `privileges` are arguments of setpriv.
///
/// # Errors
/// If it is not installed, or does not start within 20 s; the error has its log.
pub(crate) async fn start(
    env: &TestEnv,
    program: &str,
    privileges: &[&str],
    args: &[&str],
    port: u16,
) -> anyhow::Result<Child> {
    start_on(env, program, privileges, args, ("127.0.0.1", port)).await
}

/// As [`start`], on another address.
///
/// # Errors
/// As [`start`].
pub(crate) async fn start_on(
    env: &TestEnv,
    program: &str,
    privileges: &[&str],
    args: &[&str],
    address: (&str, u16),
) -> anyhow::Result<Child> {
    let name = Path::new(program).file_name().unwrap_or_default().display();
    let log_file = env.file(&format!("{name}.log"));
    let log = std::fs::File::create(&log_file)?;
    let mut command = Command::new("setpriv");
    command.args(privileges).args(["--pdeathsig", "KILL", "--", program]).args(args).kill_on_drop(true);
    command.env("PATH", "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin");
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let listens = async || Ok(TcpStream::connect(address).await.is_ok());
    let started = eventually("the server listens", START_TIMEOUT, listens).await;
    started.with_context(|| {
        let log = std::fs::read_to_string(&log_file).unwrap_or_default();
        format!("on Debian, run `apt-get install {name}`: {log}")
    })?;
    Ok(child)
}
