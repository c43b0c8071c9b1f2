//! A whole node: kubelet, containerd, CoreDNS and the control plane, by the scripts in `tests/node`.
//!
//! Addresses and interface names are the machine's, so there is one node at a time: a second start waits for the end of
//! the first, whoever started it. Images come from archives alone, so pods need `imagePullPolicy: Never`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::access::Access;
use crate::{repository, run};

/// How long the end of a node may take.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// A keeper starts the node, and ends it when its input ends: when we let go of it, or are no more.
/// It must not end because nobody reads what it says any more.
const KEEPER: &str = r#"
    trap '' PIPE
    said=$("$1/up") || exit 1
    echo "$said" 2>/dev/null || true
    read -r _
    exec "$1/down" "${said%%[!0-9]*}"
"#;

/// A running node. It ends when it is dropped, or with the process; [`Node::stop`] waits for that.
pub struct Node {
    access: Access,
    pid: u32,
    keeper: Child,
    hold: Option<ChildStdin>,
}

impl Node {
    /// The host's address, as pods see it.
    pub const HOST: &str = "10.89.0.1";
    /// The node's address, as the host sees it. Pods' and services' addresses are reachable from the host, too.
    pub const ADDRESS: &str = "10.89.0.2";

    /// Starts a node, and builds before what is missing. Waits while there is another.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let mut command = Command::new("bash");
        command.args(["-c", KEEPER, "keeper"]).arg(scripts());
        // What it waits for goes to the terminal. In a group of its own: Ctrl-C is for us, and the keeper cleans up.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
        let mut keeper = command.spawn().context("cannot start bash")?;
        let hold = keeper.stdin.take();
        let mut lines = BufReader::new(keeper.stdout.take().context("its output")?).lines();
        let said = "tests/node/up did not start the node; what it printed says why";
        let pid = lines.next_line().await?.context(said)?.parse()?;
        let kubeconfig = lines.next_line().await?.context(said)?;
        let access = Access::read(PathBuf::from(kubeconfig)).await?;
        Ok(Self { access, pid, keeper, hold })
    }

    /// The way in as somebody who may do everything.
    pub fn admin(&self) -> &Access {
        &self.access
    }

    /// The process that all others of the node end with.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Loads an image from an archive, such as [`image`] makes.
    ///
    /// # Errors
    /// If it cannot be loaded.
    pub async fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        run(Command::new(scripts().join("load-image")).arg(archive)).await.map(drop)
    }

    /// Runs a command inside the node to its end; returns everything that it printed.
    ///
    /// # Errors
    /// If it fails: with everything that it printed.
    pub async fn enter(&self, command: &[&str]) -> anyhow::Result<String> {
        run(Command::new(scripts().join("enter")).args(command)).await
    }

    /// Ends it, and waits until nothing of it is left.
    ///
    /// # Errors
    /// If something is.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.hold.take());
        let ended = tokio::time::timeout(ENDS_WITHIN, self.keeper.wait()).await;
        let status = ended.context("the node did not end")??;
        anyhow::ensure!(status.success(), "tests/node/down left something behind");
        Ok(())
    }
}

fn scripts() -> PathBuf {
    repository().join("tests/node")
}

/// Makes an image of one program, `localhost/NAME:TAG`, by `scripts/image`; returns its archive.
///
/// # Errors
/// If it cannot be made.
pub async fn image(program: &Path, name: &str, tag: &str) -> anyhow::Result<PathBuf> {
    let mut command = Command::new(repository().join("scripts/image"));
    command.arg("--binary").arg(program).args(["--name", name, "--tag", tag]);
    let printed = run(&mut command).await?;
    Ok(PathBuf::from(printed.lines().last().context("the path of the archive")?))
}
