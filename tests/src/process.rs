//! Processes of the binary under test.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::cgroup::MemoryCgroup;
use crate::client::{Client, token};
use crate::env::{TestEnv, pulse};
use crate::host::{free_port, run_through, send_signal};
use crate::wait::eventually;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running role. It is killed when this is dropped.
pub struct Process {
    child: Child,
    /// URL of the API or console; only these roles listen there.
    pub url: String,
    /// URL of the admin port.
    pub admin: String,
    /// Log file: stdout and stderr.
    pub log: PathBuf,
}

impl Process {
    /// Starts a role on free ports and waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// If the role is not ready within 20 s; the error includes its log.
    pub async fn start(env: &TestEnv, role: &str, more: &[&str]) -> anyhow::Result<Self> {
        Self::start_until(env, role, more, "/readyz").await
    }

    /// Starts an API, a worker and a scheduler, as [`start`](Self::start) does.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_all(env: &TestEnv) -> anyhow::Result<[Self; 3]> {
        let start = async |role| Self::start(env, role, &[]).await;
        Ok([start("api").await?, start("worker").await?, start("scheduler").await?])
    }

    /// Like [`start`](Self::start), for a role that cannot become ready: waits until `/livez` answers 200.
    ///
    /// # Errors
    /// If the role is not live within 20 s; the error includes its log.
    pub async fn start_unready(env: &TestEnv, role: &str, more: &[&str]) -> anyhow::Result<Self> {
        Self::start_until(env, role, more, "/livez").await
    }

    async fn start_until(env: &TestEnv, role: &str, more: &[&str], probe: &str) -> anyhow::Result<Self> {
        let process = Self::spawn(env, role, more)?;
        process.wait_for(probe).await?;
        Ok(process)
    }

    /// Waits until a role that was spawned answers 200 to `/readyz`.
    ///
    /// # Errors
    /// If the role is not ready within 20 s; the error includes its log.
    pub async fn wait_until_ready(&self) -> anyhow::Result<()> {
        self.wait_for("/readyz").await
    }

    async fn wait_for(&self, probe: &str) -> anyhow::Result<()> {
        let client = self.admin();
        let answers = async || Ok(client.get(probe).await?.status == 200);
        let answered = eventually("the role answers its probe", START_TIMEOUT, answers).await;
        answered.with_context(|| std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Opens a connection to the API, for requests that no HTTP client sends.
    ///
    /// # Errors
    /// If the API does not listen.
    pub async fn connect(&self) -> anyhow::Result<TcpStream> {
        Ok(TcpStream::connect(self.address()).await?)
    }

    /// Address and port of the API.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Starts a role on free ports, and does not wait for it.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn(env: &TestEnv, role: &str, more: &[&str]) -> anyhow::Result<Self> {
        Self::spawn_with(env, role, more, pulse)
    }

    /// Like [`spawn`](Self::spawn), in a cgroup.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn_in(cgroup: &MemoryCgroup, env: &TestEnv, role: &str, more: &[&str]) -> anyhow::Result<Self> {
        Self::spawn_with(env, role, more, |env, args| cgroup.enter(pulse(env, args)))
    }

    /// Like [`spawn`](Self::spawn), with soft and hard limit of file descriptors.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn_with_descriptors(env: &TestEnv, role: &str, limits: &str, more: &[&str]) -> anyhow::Result<Self> {
        Self::spawn_with(env, role, more, |env, args| {
            let mut limit = Command::new("prlimit");
            limit.arg(format!("--nofile={limits}")).arg("--");
            run_through(limit, &pulse(env, args))
        })
    }

    /// Like [`spawn`](Self::spawn), with environment variables.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn_with_variables(
        env: &TestEnv,
        role: &str,
        variables: &[(&str, String)],
        more: &[&str],
    ) -> anyhow::Result<Self> {
        Self::spawn_with(env, role, more, |env, args| {
            let mut command = pulse(env, args);
            command.envs(variables.iter().map(|(name, value)| (name, value)));
            command
        })
    }

    fn spawn_with(
        env: &TestEnv,
        role: &str,
        more: &[&str],
        command: impl FnOnce(&TestEnv, &[&str]) -> Command,
    ) -> anyhow::Result<Self> {
        let (api, admin) = (free_port()?, free_port()?);
        let admin_listen = format!("127.0.0.1:{admin}");
        let api_listen = format!("127.0.0.1:{api}");
        let mut args = vec![role, "--admin-listen", &admin_listen];
        if role == "api" {
            args.extend(["--listen", &api_listen]);
        }
        if role == "console" {
            args.extend(["--console-listen", &api_listen]);
        }
        args.extend(more);
        let log = env.file(&format!("{role}-{admin}.log"));
        let child =
            command(env, &args).stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?).spawn()?;
        Ok(Self { child, url: format!("http://{api_listen}"), admin: format!("http://{admin_listen}"), log })
    }

    /// Client of the API with a token of `user`.
    pub fn client(&self, user: &str) -> Client {
        Client::new(&self.url, &token(user, None))
    }

    /// Client of the admin port.
    pub fn admin(&self) -> Client {
        Client::new(&self.admin, "")
    }

    /// Sum of all samples in `/metrics` whose line contains `filter`; 0 if there is none.
    ///
    /// # Errors
    /// If `/metrics` cannot be read.
    pub async fn metric(&self, filter: &str) -> anyhow::Result<f64> {
        let text = self.admin().get("/metrics").await?.text;
        let samples = text.lines().filter(|line| !line.starts_with('#') && line.contains(filter));
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Process ID; `None` after the process has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Memory of the process, in bytes.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let pid = self.pid().context("the process runs")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(resident.trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send_signal(self.child.id(), signal)
    }

    /// Whether the process has ended.
    ///
    /// # Errors
    /// If the operating system does not say.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills the process with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// If the process cannot be killed.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Sends SIGTERM, waits for the end and returns the exit code (-1 after a signal).
    ///
    /// # Errors
    /// If the role does not end within one minute.
    pub async fn stop(&mut self) -> anyhow::Result<i32> {
        self.signal(Signal::TERM)?;
        let ended = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        Ok(ended.context("the role did not end")??.code().unwrap_or(-1))
    }
}
