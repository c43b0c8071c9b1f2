//! ServerProcess processes that die with us.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getuid, kill_process};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// `nobody`, on every system that we know.
const NOBODY: u32 = 65534;
/// How long a server may take to start, or to stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// The path of a program: in one of `folders`, or on the PATH.
pub(super) fn find(program: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "PATH is not a setting of ours")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = folders.iter().cloned().chain(std::env::split_paths(&path));
    candidates.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Creates a folder that belongs to whom the servers run as.
pub(super) fn server_folder(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        std::fs::create_dir_all(path).with_context(|| format!("failed to create {}", path.display()))?;
        super::data_dir::set_mode(path, 0o700)?;
        if getuid().is_root() {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))
                .with_context(|| format!("failed to give {} to nobody", path.display()))?;
        }
    }
    Ok(())
}

/// A command that runs as nobody if we are root, and is sent `at_our_death` when we die.
pub(super) fn command(program: &Path, at_our_death: &str) -> Command {
    let Some(setpriv) = find("setpriv", &[]) else {
        // Not Linux: it ends when it is stopped or dropped.
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    if getuid().is_root() {
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into()]);
    }
    command.arg("--pdeathsig").arg(at_our_death).arg("--").arg(program);
    command
}

/// Runs a command to its end.
pub(super) async fn run(mut command: Command, what: &str) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).current_dir("/").output().await;
    let output = output.with_context(|| format!("failed to start {what}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!("{what} failed: {}", String::from_utf8_lossy(&output.stderr).trim())
}

/// A running server.
pub(super) struct ServerProcess {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts a command that stays in the foreground; what it prints goes to `log`.
    pub(super) fn start(name: &'static str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log).with_context(|| format!("failed to write {}", log.display()))?;
        // In a group of its own: Ctrl-C is for us, and we stop it in turn.
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("failed to start {name}"))?;
        Ok(Self { name, child, log: log.to_owned() })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until `is_ready` says so; an end before that is an error, with the server's last words.
    pub(super) async fn wait_until(&mut self, is_ready: impl AsyncFn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready within {} s: {}", self.name, PATIENCE.as_secs(), self.last_words());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let Some(pid) = pid else { return Ok(()) };
        kill_process(pid, signal).with_context(|| format!("failed to signal {}", self.name))
    }

    /// Sends `signal` and waits for the end.
    pub(super) async fn stop(mut self, signal: Signal) -> anyhow::Result<()> {
        self.signal(signal)?;
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.with_context(|| format!("{} did not end within {} s", self.name, PATIENCE.as_secs()))??;
        Ok(())
    }
}

/// The first line of `program --version`, up to the version.
pub(super) async fn version(program: &Path) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.arg("--version");
    let text = run(command, &program.display().to_string()).await?;
    let is_version = |word: &&str| word.trim_start_matches("v=").starts_with(|first: char| first.is_ascii_digit());
    Ok(text.split_whitespace().find(is_version).unwrap_or("unknown").trim_start_matches("v=").to_owned())
}
