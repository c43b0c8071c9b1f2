//! The operator as a process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::cluster::Access;
use crate::host::{binary, free_port, send_signal};

/// Flags for intervals much shorter than in production, and a Lease of 3 s.
const FAST_INTERVALS: [&str; 10] = [
    "--lease-duration",
    "3s",
    "--poll-interval",
    "500ms",
    "--resync-interval",
    "3s",
    "--missing-interval",
    "250ms",
    "--watch-timeout",
    "10",
];

/// A running operator process. It is killed when dropped.
pub struct OperatorProcess {
    child: Child,
    /// URL of its admin port.
    pub admin: String,
    /// Path of its log file.
    pub log: PathBuf,
}

impl OperatorProcess {
    /// Starts an operator that watches one namespace, with short intervals. Its log is written into `folder`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(access: &Access, namespace: &str, folder: &Path, extra_args: &[&str]) -> anyhow::Result<Self> {
        let of_namespace = ["--watch-namespace", namespace];
        let args = [&of_namespace, &FAST_INTERVALS[..], extra_args].concat();
        Self::spawn(&binary(), access, namespace, folder, &args)
    }

    /// As [`start`](Self::start), watching every namespace.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_cluster_wide(access: &Access, own_namespace: &str, folder: &Path) -> anyhow::Result<Self> {
        Self::spawn(&binary(), access, own_namespace, folder, &FAST_INTERVALS)
    }

    pub(super) fn spawn(
        program: &Path,
        access: &Access,
        own_namespace: &str,
        folder: &Path,
        args: &[&str],
    ) -> anyhow::Result<Self> {
        let admin = format!("127.0.0.1:{}", free_port()?);
        let log = folder.join(format!("operator-{}.log", admin.replace(':', "-")));
        let mut command = Command::new(program);
        command.args(["operator", "--admin-listen", &admin, "--operator-namespace", own_namespace]).args(args);
        command.env("KUBECONFIG", access.kubeconfig()).env("PULSE_LOG", "info,pulse_operator=debug");
        let output = std::fs::File::create(&log)?;
        command.kill_on_drop(true).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("failed to start the operator")?;
        Ok(Self { child, admin: format!("http://{admin}"), log })
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process has exited.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send_signal(self.child.id(), signal)
    }

    /// The process ID; none after the exit.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends SIGKILL and waits for the exit.
    ///
    /// # Errors
    /// If the process has exited.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Sends SIGTERM, waits for the exit, and returns the exit code.
    ///
    /// # Errors
    /// If the process does not exit within a minute.
    pub async fn stop(mut self) -> anyhow::Result<i32> {
        self.signal(Signal::TERM)?;
        self.wait_for_exit().await
    }

    /// Waits for the exit and returns the exit code; -1 after a signal.
    ///
    /// # Errors
    /// If the process does not exit within a minute.
    pub async fn wait_for_exit(&mut self) -> anyhow::Result<i32> {
        let exit = tokio::time::timeout(Duration::from_secs(60), self.child.wait()).await;
        Ok(exit.context("the operator did not exit within a minute")??.code().unwrap_or(-1))
    }

    /// Number of reconciles since its start, from its metrics; 0 if it does not answer.
    pub async fn reconcile_count(&self) -> usize {
        let Ok(answer) = crate::client::Client::new(&self.admin, "").get("/metrics").await else { return 0 };
        let counts = answer.text.lines().filter(|line| line.starts_with("pulse_operator_reconciles_total{"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    }

    /// The whole log.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn output(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }
}
