//! A cgroup with a memory limit, like that of a container. Requires root.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;
use tokio::process::Command;

use crate::host::run_through;

/// Enters the cgroup and then runs the program.
const ENTER: &str = r#"echo $$ > "$0" && exec "$@""#;

/// A cgroup whose processes are killed when they need more memory than its limit. It is removed with this value, if its
/// processes have ended.
pub struct MemoryCgroup {
    folder: PathBuf,
    /// Name of the file with the peak of memory.
    peak: &'static str,
}

impl MemoryCgroup {
    /// Creates a cgroup with a limit in bytes, of version 1 or 2.
    ///
    /// # Errors
    /// If the process is not root, or the machine has no memory controller.
    pub fn new(limit: u64) -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("pulse-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let version_1 = Path::new("/sys/fs/cgroup/memory");
        let (folder, file, peak) = if version_1.is_dir() {
            (version_1.join(name), "memory.limit_in_bytes", "memory.max_usage_in_bytes")
        } else {
            let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
            (Path::new("/sys/fs/cgroup").join(name), "memory.max", "memory.peak")
        };
        fs::create_dir(&folder).with_context(|| format!("cannot create {}: run as root", folder.display()))?;
        let cgroup = Self { folder, peak };
        fs::write(cgroup.folder.join(file), limit.to_string()).context("cannot set the limit")?;
        Ok(cgroup)
    }

    /// The command, run in this cgroup.
    pub(crate) fn enter(&self, command: Command) -> Command {
        let mut entering = Command::new("sh");
        entering.arg("-c").arg(ENTER).arg(self.folder.join("cgroup.procs"));
        run_through(entering, &command)
    }

    /// The most memory that the processes used together so far, in bytes, page cache included.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn peak(&self) -> anyhow::Result<u64> {
        Ok(fs::read_to_string(self.folder.join(self.peak))?.trim().parse()?)
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
