//! Processes and folders that end with the test process, even if it is killed.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

const POLL: Duration = Duration::from_millis(20);

/// A running server. It is ended by SIGKILL, because after SIGTERM an API server keeps running until all watches end.
pub(super) struct ClusterProcess {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl ClusterProcess {
    /// Starts a program in the foreground with its output in `<name>.log` in `folder`.
    ///
    /// The kernel kills the program when the calling *thread* ends, so that thread must outlive the server.
    pub(super) fn start(name: &'static str, program: &Path, args: &[String], folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // In a separate process group, so that Ctrl-C reaches the test only.
        command.current_dir(folder).process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, log })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until `is_ready` is true. If the server ends first, the error includes the end of its log.
    pub(super) async fn wait_until(
        &mut self,
        timeout: Duration,
        is_ready: impl AsyncFn() -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        while !is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.name, self.log_tail());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready within {} s: {}", self.name, timeout.as_secs(), self.log_tail());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Kills the server and waits for its end.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot end {}", self.name))
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// A folder that is removed when this is dropped or the process ends, even if it is killed.
pub(super) struct Folder {
    path: PathBuf,
    janitor: std::process::Child,
}

impl Folder {
    /// Creates a folder, in memory if possible.
    pub(super) fn create() -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("pulse-cluster-");
        let made = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() };
        let path = made.map(TempDir::keep).context("cannot create a folder for the cluster")?;
        // The janitor's standard input ends with this process. It retries while dying servers still write.
        let script = r#"read -r _; n=0; until rm -rf "$1" || [ $n -ge 100 ]; do n=$((n + 1)); sleep 0.05; done"#;
        let mut janitor = std::process::Command::new("sh");
        janitor.args(["-c", script, "janitor"]).arg(&path);
        janitor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let janitor = janitor.spawn().context("cannot start sh")?;
        Ok(Self { path, janitor })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file with mode 0600 and returns its path.
    pub(super) fn write(&self, name: &str, content: &str) -> anyhow::Result<String> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path.join(name);
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(content.as_bytes())?;
        Ok(path.display().to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        drop(self.janitor.wait());
    }
}
