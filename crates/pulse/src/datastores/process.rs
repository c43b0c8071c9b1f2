//! Child processes for the private servers. They end with this process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// The unprivileged uid of Linux, on every distribution.
const UNPRIVILEGED_UID: u32 = 65534;
/// Time limit for a server to start, and to stop.
const START_STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a starting server is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Searches a program in `directories`, then on the PATH.
pub(super) fn find(program: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "PATH is not a setting of pulse")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = directories.iter().cloned().chain(std::env::split_paths(&path));
    candidates.map(|directory| directory.join(program)).find(|candidate| candidate.is_file())
}

/// Creates a directory that only the user of the servers can enter.
pub(super) fn server_dir(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        std::fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
        super::data_dir::set_mode(path, 0o700)?;
        if getuid().is_root() {
            std::os::unix::fs::chown(path, Some(UNPRIVILEGED_UID), Some(UNPRIVILEGED_UID))
                .with_context(|| format!("cannot change the owner of {} to uid 65534", path.display()))?;
        }
    }
    Ok(())
}

/// A command that runs as uid 65534 if this process runs as root. On Linux the kernel sends it `parent_death_signal`
/// when this process dies.
pub(super) fn command(program: &Path, parent_death_signal: &str) -> Command {
    let Some(setpriv) = find("setpriv", &[]) else {
        // Not Linux: the process ends only when it is stopped or its handle is dropped.
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    if getuid().is_root() {
        command.args([
            format!("--reuid={UNPRIVILEGED_UID}"),
            format!("--regid={UNPRIVILEGED_UID}"),
            "--clear-groups".into(),
        ]);
    }
    command.arg("--pdeathsig").arg(parent_death_signal).arg("--").arg(program);
    command
}

/// Runs a command and returns its stdout. `name` is for the error.
pub(super) async fn run(mut command: Command, name: &str) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).current_dir("/").output().await;
    let output = output.with_context(|| format!("cannot start {name}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim())
}

/// A running server.
pub(super) struct ServerProcess {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts a command that stays in the foreground, with stdout and stderr in the file `log`.
    pub(super) fn start(name: &'static str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        // A separate process group, so that Ctrl-C reaches this process only. It then stops the server.
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until `is_ready` is true. Fails with the end of the log if the server ends or is not ready in time.
    pub(super) async fn wait_until(&mut self, is_ready: impl AsyncFn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_STOP_TIMEOUT;
        while !is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready within {} s: {}", self.name, START_STOP_TIMEOUT.as_secs(), self.log_tail());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let Some(pid) = pid else { return Ok(()) };
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Sends `signal` and waits until the process has ended.
    pub(super) async fn stop(mut self, signal: Signal) -> anyhow::Result<()> {
        self.signal(signal)?;
        let ended = tokio::time::timeout(START_STOP_TIMEOUT, self.child.wait()).await;
        ended.with_context(|| format!("{} did not end within {} s", self.name, START_STOP_TIMEOUT.as_secs()))??;
        Ok(())
    }
}

/// Returns the version in the output of `program --version`, such as `15.18` or `7.0.15`.
pub(super) async fn version(program: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.arg("--version");
    let text = run(command, &program.display().to_string()).await?;
    let is_version = |word: &&str| word.trim_start_matches("v=").starts_with(|first: char| first.is_ascii_digit());
    Ok(text.split_whitespace().find(is_version).unwrap_or("unknown").trim_start_matches("v=").to_owned())
}
