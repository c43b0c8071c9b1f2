//! `--dev-reload`, for development: replaces a running role by a newer build of the program.
//!
//! The role runs until the new build is complete and starts. It then stops as at SIGTERM, and the process executes the
//! new program with the same arguments (`execve`). Process id and container stay the same, and no task is lost.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::shutdown;

/// How often the file is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// The program of this process, also after its file was removed.
const CURRENT_PROGRAM: &str = "/proc/self/exe";

/// Replacement by a newer build, for development.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReloadArgs {
    /// For development: path at which newer builds of this program appear. The role then stops as at SIGTERM, and the
    /// process runs the new build. An operator sets the same path in its pods and mounts an empty volume for it
    #[arg(long, env = "PULSE_DEV_RELOAD", value_name = "FILE", value_parser = build_path)]
    dev_reload: Option<PathBuf>,
}

/// Parses the path of a build. Pods mount a volume at its directory, which therefore cannot be the root.
fn build_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let directory = path.parent().filter(|directory| directory.parent().is_some());
    if path.is_absolute() && directory.is_some() {
        Ok(path)
    } else {
        Err("expected an absolute path below a directory, such as /dev-bin/pulse".into())
    }
}

impl ReloadArgs {
    /// Path at which newer builds appear.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn file(self) -> Option<PathBuf> {
        self.dev_reload
    }

    /// Runs a role until SIGTERM or SIGINT, or until a newer build replaces it.
    ///
    /// # Errors
    /// If the role fails.
    pub(crate) async fn run<F>(self, role: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let shutdown = shutdown::signal()?;
        let Self { dev_reload: Some(file) } = self else { return role(shutdown).await };
        // A restarted container starts with the program of its image: replace it at once.
        if build_version(&file).is_some() {
            let error = check_build(&file).err().unwrap_or_else(|| exec(&file));
            tracing::warn!(file = %file.display(), %error, "cannot start the newer build: keeping the current one");
        }
        let stopping = shutdown.child_token();
        std::thread::spawn({
            let (file, stopping) = (file.clone(), stopping.clone());
            move || watch(&file, &stopping)
        });
        role(stopping).await?;
        if shutdown.is_cancelled() {
            return Ok(());
        }
        let error = exec(&file);
        tracing::warn!(file = %file.display(), %error, "cannot start the newer build: starting the current one again");
        Err(exec(Path::new(CURRENT_PROGRAM)).into())
    }
}

/// Cancels `stopping` when the file has a newer build that starts.
fn watch(file: &Path, stopping: &CancellationToken) {
    let mut seen = None;
    let mut rejected = None;
    while !stopping.is_cancelled() {
        std::thread::sleep(CHECK_INTERVAL);
        let before = std::mem::replace(&mut seen, build_version(file));
        // There is no file, it is still being written, or it was rejected before.
        if seen.is_none() || seen != before || seen == rejected {
            continue;
        }
        match check_build(file) {
            Ok(()) => {
                tracing::info!(file = %file.display(), "stopping to run a newer build");
                stopping.cancel();
            }
            // The writer still has the file open: try again later.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {}
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot start the newer build: keeping the current one");
                rejected = seen;
            }
        }
    }
}

/// Identifies the content and mode of the file, or `None` if there is no file or it is the running program. The change
/// time is part of it, so that a change of the mode alone is noticed.
fn build_version(file: &Path) -> Option<[i64; 5]> {
    let inode = |file: &Metadata| [file.dev().cast_signed(), file.ino().cast_signed()];
    let found = std::fs::metadata(file).ok()?;
    let [device, number] = inode(&found);
    let running = std::fs::metadata(CURRENT_PROGRAM).ok()?;
    let other = inode(&running) != [device, number];
    other.then(|| [device, number, found.len().cast_signed(), found.ctime(), found.ctime_nsec()])
}

/// Runs a build with `--version`. That fails for an incomplete file, another architecture or a missing library.
fn check_build(file: &Path) -> io::Result<()> {
    let mut command = Command::new(file);
    let output = command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}: {}", output.status, stderr.trim())))
}

/// Replaces the program of this process; returns only if that fails.
fn exec(file: &Path) -> io::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| file.into());
    Command::new(file).arg0(name).args(arguments).exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_path_is_absolute_and_below_a_directory() {
        assert!(build_path("/dev-bin/pulse").is_ok());
        assert!(build_path("/pulse").is_err());
        assert!(build_path("bin/pulse").is_err());
    }
}
