//! For development: a role that goes on as a newer build of itself, in the same process and so in the same container.
//!
//! Until a build can be started, the role keeps running. Then it ends as at SIGTERM, and the process becomes the new
//! program, with the same arguments: no work is lost, and nothing restarts.

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

/// Between two looks at the file.
const PERIOD: Duration = Duration::from_millis(200);
/// The program that runs, even after its file was removed.
const RUNNING: &str = "/proc/self/exe";

/// Development.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReloadArgs {
    /// For development: where newer builds of this program are put. The role ends as at SIGTERM and goes on as that
    /// build, in the same process. An operator's pods do the same, each with an empty folder for the file
    #[arg(long, env = "PULSE_DEV_RELOAD", value_name = "FILE", value_parser = in_a_folder)]
    pub(crate) dev_reload: Option<PathBuf>,
}

/// Pods mount a volume over the file's folder, which therefore is not the root.
fn in_a_folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let folder = path.parent().and_then(Path::parent);
    if path.is_absolute() && folder.is_some() { Ok(path) } else { Err("expected a path such as /dev-bin/pulse".into()) }
}

impl ReloadArgs {
    /// Runs a role until a signal, or until there is a newer build, which then takes its place.
    ///
    /// # Errors
    /// The role's.
    pub(crate) async fn run<F>(self, role: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let told = shutdown::signal()?;
        let Self { dev_reload: Some(file) } = self else { return role(told).await };
        // A container that restarts begins with what its image holds.
        if build(&file).is_some() {
            let problem = try_out(&file).err().unwrap_or_else(|| become_program(&file));
            tracing::warn!(file = %file.display(), %problem, "this build cannot be started: going on without it");
        }
        let stopping = told.child_token();
        std::thread::spawn({
            let (file, stopping) = (file.clone(), stopping.clone());
            move || watch(&file, &stopping)
        });
        role(stopping).await?;
        if told.is_cancelled() {
            return Ok(());
        }
        let problem = become_program(&file);
        tracing::warn!(file = %file.display(), %problem, "this build could not be started after all: starting again");
        Err(become_program(Path::new(RUNNING)).into())
    }
}

/// Cancels `stopping` once there is a newer build that can be started.
fn watch(file: &Path, stopping: &CancellationToken) {
    let mut seen = None;
    let mut refused = None;
    while !stopping.is_cancelled() {
        std::thread::sleep(PERIOD);
        let before = std::mem::replace(&mut seen, build(file));
        // None, still being written, or tried before.
        if seen.is_none() || seen != before || seen == refused {
            continue;
        }
        match try_out(file) {
            Ok(()) => {
                tracing::info!(file = %file.display(), "stopping, to go on as a newer build");
                stopping.cancel();
            }
            // Whoever writes it has it open still.
            Err(problem) if problem.kind() == ErrorKind::ExecutableFileBusy => {}
            Err(problem) => {
                tracing::warn!(file = %file.display(), %problem, "this build cannot be started: going on without it");
                refused = seen;
            }
        }
    }
}

/// What changes whenever the file does, even in its mode; none if there is no build but the running one.
fn build(file: &Path) -> Option<[i64; 5]> {
    let inode = |file: &Metadata| [file.dev().cast_signed(), file.ino().cast_signed()];
    let found = std::fs::metadata(file).ok()?;
    let [device, number] = inode(&found);
    let running = std::fs::metadata(RUNNING).ok()?;
    let other = inode(&running) != [device, number];
    other.then(|| [device, number, found.len().cast_signed(), found.ctime(), found.ctime_nsec()])
}

/// Starts a build, only to say its version: half a file, one for another machine or one that misses a library cannot.
fn try_out(file: &Path) -> io::Result<()> {
    let mut command = Command::new(file);
    let output = command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{}: {}", output.status, said.trim())))
}

/// Returns only if it fails.
fn become_program(file: &Path) -> io::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| file.into());
    Command::new(file).arg0(name).args(arguments).exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_put_into_a_folder_that_can_be_mounted() {
        assert!(in_a_folder("/dev-bin/pulse").is_ok());
        assert!(in_a_folder("/pulse").is_err());
        assert!(in_a_folder("bin/pulse").is_err());
    }
}
