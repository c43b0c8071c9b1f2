//! The binary under test, as processes.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::client::{Client, token};
use crate::{SECRET, TestEnv, eventually};

const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// The binary, with the environment that every role needs.
pub fn pulse(world: &TestEnv, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).kill_on_drop(true).stdin(Stdio::null());
    command.env("PULSE_DATABASE_URL", &world.database_url).env("PULSE_REDIS_URL", &world.redis_url);
    command.env("PULSE_LOG_FORMAT", "json");
    // A role has one key or the other.
    if !args.contains(&"--jwt-public-key-file") {
        command.env("PULSE_JWT_SECRET", SECRET);
    }
    command
}

/// The binary under test, beside the test's own executable.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let folder = test.ancestors().nth(2).unwrap_or(&test);
    folder.join("pulse-under-test")
}

/// Runs a command to its end; returns exit code and everything that it printed.
///
/// # Errors
/// If it cannot be started.
pub async fn pulse_output(world: &TestEnv, args: &[&str]) -> anyhow::Result<(i32, String)> {
    let output = pulse(world, args).output().await.context("failed to start the binary under test")?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
}

/// A running role.
pub struct Process {
    child: Child,
    /// Where its API is, if it is one.
    pub url: String,
    /// Where its admin port is.
    pub admin: String,
    /// Its log.
    pub log: PathBuf,
}

impl Process {
    /// Starts a role on free ports, and returns once it says that it is ready.
    ///
    /// # Errors
    /// If it is not ready in time: with its log.
    pub async fn start(world: &TestEnv, role: &str, more: &[&str]) -> anyhow::Result<Self> {
        Self::start_until(world, role, more, "/readyz").await
    }

    /// The same, for a role that cannot be ready: returns once it is live.
    ///
    /// # Errors
    /// If it is not live in time: with its log.
    pub async fn start_unready(world: &TestEnv, role: &str, more: &[&str]) -> anyhow::Result<Self> {
        Self::start_until(world, role, more, "/livez").await
    }

    async fn start_until(world: &TestEnv, role: &str, more: &[&str], probe: &str) -> anyhow::Result<Self> {
        let (api, admin) = (free_port()?, free_port()?);
        let admin_listen = format!("127.0.0.1:{admin}");
        let api_listen = format!("127.0.0.1:{api}");
        let mut args = vec![role, "--admin-listen", &admin_listen];
        if role == "api" {
            args.extend(["--listen", &api_listen]);
        }
        args.extend(more);
        let log = world.file(&format!("{role}-{admin}.log"));
        let child =
            pulse(world, &args).stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?).spawn()?;
        let process = Self { child, url: format!("http://{api_listen}"), admin: format!("http://{admin_listen}"), log };
        let client = Client::new(&process.admin, "");
        let ready =
            eventually(
                "the role answers its probe",
                STARTS_WITHIN,
                async || Ok(client.get(probe).await?.status == 200),
            )
            .await;
        ready.with_context(|| std::fs::read_to_string(&process.log).unwrap_or_default())?;
        Ok(process)
    }

    /// Calls its API as `user`.
    pub fn client(&self, user: &str) -> Client {
        Client::new(&self.url, &token(user, None))
    }

    /// Calls its admin port.
    pub fn admin(&self) -> Client {
        Client::new(&self.admin, "")
    }

    /// The sum of a metric's samples that contain `filter`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn metric(&self, filter: &str) -> anyhow::Result<f64> {
        let text = self.admin().get("/metrics").await?.text;
        let samples = text.lines().filter(|line| !line.starts_with('#') && line.contains(filter));
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Its process id, until it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send_signal(self.child.id(), signal)
    }

    /// Ends it at once.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Sends SIGTERM and waits for the end; returns the exit code.
    ///
    /// # Errors
    /// If it does not end within a minute.
    pub async fn stop(&mut self) -> anyhow::Result<i32> {
        self.signal(Signal::TERM)?;
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        Ok(ended.context("the role did not end")??.code().unwrap_or(-1))
    }
}

/// A port that nobody listens on.
///
/// # Errors
/// If there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Sends a signal to a process of the test.
///
/// # Errors
/// If it has ended.
pub fn send_signal(pid: Option<u32>, signal: Signal) -> anyhow::Result<()> {
    let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).context("the process has ended")?;
    Ok(kill_process(pid, signal)?)
}
