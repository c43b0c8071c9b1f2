//! The cluster, and what a person has in hand: a shell with `kubectl`, `helm` and `pulse`, and a way to load images.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use pulse_tests::cluster::{Access, Node, packaging_program, program};
use pulse_tests::{forget_cargo, repository, run};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{Mutex, OnceCell};

/// One story at a time: each needs the whole machine, and the CRD is the cluster's.
pub(crate) static ALONE: Mutex<()> = Mutex::const_new(());
/// How long a step may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// A cluster that images can be loaded into.
pub(crate) struct Cluster {
    access: Access,
    load: Vec<String>,
    /// The programs that commands find: `helm`, `kubectl`, `pulse`; `kubectl-pulse` once README's line was typed.
    programs: TempDir,
    _node: Option<Node>,
}

impl Cluster {
    /// The cluster of this test binary, with our images and the datastores'.
    pub(crate) async fn get() -> anyhow::Result<&'static Self> {
        static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
        CLUSTER.get_or_try_init(Self::start).await
    }

    #[expect(clippy::disallowed_methods, reason = "whoever runs the test says which cluster")]
    async fn start() -> anyhow::Result<Self> {
        let script = |name: &str| Command::new(repository().join(name));
        let ours = run(forget_cargo(&mut script("scripts/image"))).await?;
        let folder = repository().join("target/e2e");
        let theirs = run(script("tests/cluster/images/build").arg(folder)).await?;
        let told = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let (access, load, node) = if let Some(kubeconfig) = told("KUBECONFIG") {
            let load = told("PULSE_E2E_LOAD").context(
                "KUBECONFIG is set: set PULSE_E2E_LOAD to the command that loads an image archive into that cluster, \
                 such as `k3s ctr images import`",
            )?;
            (Access::read(PathBuf::from(kubeconfig)).await?, words(&load), None)
        } else if run(Command::new("docker").arg("info")).await.is_ok() {
            let kubeconfig = repository().join("target/e2e/kubeconfig");
            let kind =
                "kind delete cluster --name pulse-e2e; kind create cluster --name pulse-e2e --wait 2m --kubeconfig";
            run(Command::new("bash").args(["-c", &format!("{kind} {}", kubeconfig.display())])).await?;
            (Access::read(kubeconfig).await?, words("kind load image-archive --name pulse-e2e"), None)
        } else {
            let node = Node::start().await?;
            let load = repository().join("tests/node/load-image").to_string_lossy().into_owned();
            (node.admin().clone(), vec![load], Some(node))
        };
        let cluster = Self { access, load, programs: programs().await?, _node: node };
        for archive in ours.lines().chain(theirs.lines()).filter(|line| line.ends_with(".tar")) {
            cluster.load_image(Path::new(archive)).await?;
        }
        Ok(cluster)
    }

    /// The folder of the programs that commands find.
    pub(crate) fn programs(&self) -> &str {
        self.programs.path().to_str().expect("a temporary folder's name is text")
    }

    /// The way in as somebody who may do everything.
    pub(crate) fn admin(&self) -> &Access {
        &self.access
    }

    /// Loads an image from an archive.
    pub(crate) async fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        let (command, args) = self.load.split_first().context("PULSE_E2E_LOAD is empty")?;
        run(Command::new(command).args(args).arg(archive)).await.map(drop)
    }

    /// What a person types, in the repository; everything that it printed.
    pub(crate) async fn shell(&self, helm: Helm, script: &str) -> anyhow::Result<String> {
        run(&mut self.command(helm, script)?).await.with_context(|| script.to_owned())
    }

    /// The same, not started yet.
    pub(crate) fn command(&self, helm: Helm, script: &str) -> anyhow::Result<Command> {
        let folder = self.programs.path();
        let path = std::env::join_paths([&folder.join(helm.name()), folder, Path::new("/usr/bin"), Path::new("/bin")])?;
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(repository()).kill_on_drop(true);
        command.env("PATH", path).env("KUBECONFIG", self.access.kubeconfig()).env("HOME", folder);
        command.stdin(Stdio::null());
        Ok(command)
    }
}

/// The two majors that people have.
#[derive(Clone, Copy)]
pub(crate) enum Helm {
    Three,
    Four,
}

impl Helm {
    fn name(self) -> &'static str {
        match self {
            Self::Three => "helm3",
            Self::Four => "helm4",
        }
    }
}

/// `pulse` as the image has it.
pub(crate) fn pulse() -> anyhow::Result<PathBuf> {
    let host = std::env::consts::ARCH;
    let program = repository().join(format!("target/{host}-unknown-linux-gnu/release/pulse"));
    anyhow::ensure!(program.is_file(), "{} is missing: scripts/image builds it", program.display());
    Ok(program)
}

/// A folder with links to the programs; each major of Helm is `helm` in a folder of its own.
async fn programs() -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, folder.path().join(name));
    link(&program("kubectl").await?, "kubectl")?;
    link(&pulse()?, "pulse")?;
    for helm in [Helm::Three, Helm::Four] {
        std::fs::create_dir(folder.path().join(helm.name()))?;
        link(&packaging_program(helm.name()).await?, &format!("{}/helm", helm.name()))?;
    }
    Ok(folder)
}
