//! A whole node: kubelet, containerd, CoreDNS and the control plane, started by the scripts in `tests/node`.
//!
//! Addresses and interface names are global to the machine, so only one node runs at a time: a second start, also in
//! another process, waits for the end of the first. Images are loaded from archives, so pods need
//! `imagePullPolicy: Never`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::access::Access;
use crate::python::{repository, run};

/// Time to wait for the end of a node.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// The keeper starts the node and stops it at the end of its standard input: when [`Node`] is dropped or the test
/// process ends. It ignores SIGPIPE, because its output may have no reader by then.
const KEEPER: &str = r#"
    trap '' PIPE
    output=$("$1/up") || exit 1
    echo "$output" 2>/dev/null || true
    read -r _
    exec "$1/down" "${output%%[!0-9]*}"
"#;

/// A running node. It ends when it is dropped, or with the process; [`Node::stop`] waits for that.
pub struct Node {
    access: Access,
    pid: u32,
    keeper: Child,
    keeper_input: Option<ChildStdin>,
}

impl Node {
    /// Address of the host for pods.
    pub const HOST: &str = "10.89.0.1";
    /// Address of the node for the host. The host also reaches the addresses of pods and Services.
    pub const ADDRESS: &str = "10.89.0.2";

    /// Starts a node, after building missing programs and images. Waits while another node runs.
    ///
    /// # Errors
    /// If the node does not start; the scripts print the reason to stderr.
    pub async fn start() -> anyhow::Result<Self> {
        let mut command = Command::new("bash");
        command.args(["-c", KEEPER, "keeper"]).arg(scripts());
        // Progress goes to the terminal. The separate process group keeps Ctrl-C from the keeper, which cleans up.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        let mut keeper = command.spawn().context("cannot start bash")?;
        let keeper_input = keeper.stdin.take();
        let mut lines = BufReader::new(keeper.stdout.take().context("its output")?).lines();
        let failed = "tests/node/up did not start the node; see its output";
        let pid = lines.next_line().await?.context(failed)?.parse()?;
        let kubeconfig = lines.next_line().await?.context(failed)?;
        let access = Access::read(PathBuf::from(kubeconfig)).await?;
        Ok(Self { access, pid, keeper, keeper_input })
    }

    /// Access as cluster administrator.
    pub fn admin(&self) -> &Access {
        &self.access
    }

    /// Process ID of the node's PID 1; all processes of the node end with it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Loads an image from an archive, such as one of [`image`].
    ///
    /// # Errors
    /// If the image cannot be loaded.
    pub async fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        run(Command::new(scripts().join("load-image")).arg(archive)).await.map(drop)
    }

    /// Runs a command inside the node to completion and returns its output.
    ///
    /// # Errors
    /// If the command fails; the error includes its output.
    pub async fn enter(&self, command: &[&str]) -> anyhow::Result<String> {
        run(Command::new(scripts().join("enter")).args(command)).await
    }

    /// Stops the node and waits until its interfaces, cgroups and files are removed.
    ///
    /// # Errors
    /// If the node does not stop within 60 s or leaves something behind.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.keeper_input.take());
        let ended = tokio::time::timeout(STOP_TIMEOUT, self.keeper.wait()).await;
        let status = ended.context("the node did not stop")??;
        anyhow::ensure!(status.success(), "tests/node/down left something behind");
        Ok(())
    }
}

fn scripts() -> PathBuf {
    repository().join("tests/node")
}

/// Builds the image `localhost/NAME:TAG` of one program with `scripts/image` and returns the path of its archive.
///
/// # Errors
/// If the image cannot be built.
pub async fn image(program: &Path, name: &str, tag: &str) -> anyhow::Result<PathBuf> {
    let mut command = Command::new(repository().join("scripts/image"));
    command.arg("--binary").arg(program).args(["--name", name, "--tag", tag]);
    let printed = run(&mut command).await?;
    Ok(PathBuf::from(printed.lines().last().context("the path of the archive")?))
}
