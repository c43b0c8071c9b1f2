//! The cluster, a shell with `kubectl`, `helm` and `pulse`, and the command that loads images.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use pulse_tests::cluster::{Access, Node, packaging_program, program};
use pulse_tests::{repository, run, without_cargo_env};
use tokio::process::Command;
use tokio::sync::{Mutex, OnceCell};

/// Serialises the tests: each needs the whole machine, and the CRD is cluster-scoped.
pub(crate) static SERIAL: Mutex<()> = Mutex::const_new(());
/// Time to wait for a condition, on a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// A cluster, with a command that loads images into it.
pub(crate) struct Cluster {
    access: Access,
    load_command: Vec<String>,
    /// Folder in the commands' `PATH`: `helm`, `kubectl`, `pulse`, and `kubectl-pulse` after README's command made it.
    programs: PathBuf,
    _node: Option<Node>,
}

impl Cluster {
    /// Cluster of this test binary, with the images of the product and of the datastores. Started at the first call.
    pub(crate) async fn get() -> anyhow::Result<&'static Self> {
        static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
        CLUSTER.get_or_try_init(Self::start).await
    }

    #[expect(clippy::disallowed_methods, reason = "the environment selects the cluster")]
    async fn start() -> anyhow::Result<Self> {
        let script = |name: &str| Command::new(repository().join(name));
        let product_images = run(without_cargo_env(&mut script("scripts/image"))).await?;
        let folder = repository().join("target/e2e");
        let datastore_images = run(script("tests/cluster/images/build").arg(folder)).await?;
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let (access, load_command, node) = if let Some(kubeconfig) = variable("KUBECONFIG") {
            let load_command = variable("PULSE_E2E_LOAD").context(
                "KUBECONFIG is set: set PULSE_E2E_LOAD to the command that loads an image archive into that cluster, \
                 such as `k3s ctr images import`",
            )?;
            (Access::read(PathBuf::from(kubeconfig)).await?, words(&load_command), None)
        } else if run(Command::new("docker").arg("info")).await.is_ok() {
            let kubeconfig = repository().join("target/e2e/kubeconfig");
            let kind =
                "kind delete cluster --name pulse-e2e; kind create cluster --name pulse-e2e --wait 2m --kubeconfig";
            run(Command::new("bash").args(["-c", &format!("{kind} {}", kubeconfig.display())])).await?;
            (Access::read(kubeconfig).await?, words("kind load image-archive --name pulse-e2e"), None)
        } else {
            let node = Node::start().await?;
            let load_command = repository().join("tests/node/load-image").to_string_lossy().into_owned();
            (node.admin().clone(), vec![load_command], Some(node))
        };
        let cluster = Self { access, load_command, programs: link_programs().await?, _node: node };
        for archive in product_images.lines().chain(datastore_images.lines()).filter(|line| line.ends_with(".tar")) {
            cluster.load_image(Path::new(archive)).await?;
        }
        Ok(cluster)
    }

    /// Path of the programs' folder.
    pub(crate) fn programs(&self) -> &str {
        self.programs.to_str().expect("the folder's name is text")
    }

    /// Access as cluster administrator.
    pub(crate) fn admin(&self) -> &Access {
        &self.access
    }

    /// Loads an image from an archive.
    pub(crate) async fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        let (command, args) = self.load_command.split_first().context("PULSE_E2E_LOAD is empty")?;
        run(Command::new(command).args(args).arg(archive)).await.map(drop)
    }

    /// Runs a shell script in the repository to completion and returns its output.
    pub(crate) async fn shell(&self, helm: Helm, script: &str) -> anyhow::Result<String> {
        run(&mut self.command(helm, script)?).await.with_context(|| script.to_owned())
    }

    /// Command of a shell script, not started.
    pub(crate) fn command(&self, helm: Helm, script: &str) -> anyhow::Result<Command> {
        let folder = self.programs.as_path();
        let path = std::env::join_paths([&folder.join(helm.name()), folder, Path::new("/usr/bin"), Path::new("/bin")])?;
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(repository()).kill_on_drop(true);
        command.env("PATH", path).env("KUBECONFIG", self.access.kubeconfig()).env("HOME", folder);
        command.stdin(Stdio::null());
        Ok(command)
    }
}

/// Major version of Helm.
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

/// Path of the release binary, which `scripts/image` builds for the image.
pub(crate) fn release_binary() -> anyhow::Result<PathBuf> {
    let host = std::env::consts::ARCH;
    let program = repository().join(format!("target/{host}-unknown-linux-gnu/release/pulse"));
    anyhow::ensure!(program.is_file(), "{} is missing: scripts/image builds it", program.display());
    Ok(program)
}

/// Creates a folder with links to the programs. Each major version of Helm is `helm` in a subfolder.
async fn link_programs() -> anyhow::Result<PathBuf> {
    let folder = repository().join("target/e2e/programs");
    // The programs of the previous run.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let link = |target: &Path, name: &str| std::os::unix::fs::symlink(target, folder.join(name));
    link(&program("kubectl").await?, "kubectl")?;
    link(&release_binary()?, "pulse")?;
    for helm in [Helm::Three, Helm::Four] {
        std::fs::create_dir(folder.join(helm.name()))?;
        link(&packaging_program(helm.name()).await?, &format!("{}/helm", helm.name()))?;
    }
    Ok(folder)
}
