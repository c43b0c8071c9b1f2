//! The dev loop on a real node, without Tilt: the image, the overlay, the buttons, and builds that are copied into
//! running pods as Tilt copies them. The test edits and builds a copy of the sources.

#![expect(clippy::print_stdout, reason = "prints measurements")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pulse_tests::cluster::{Access, Node, program};
use pulse_tests::operator::apply_crd;
use pulse_tests::tiltfile::{OVERLAY, Tiltfile};
use pulse_tests::{Client, eventually, repository, run, target_dir_for_copy, without_cargo_env};
use serde_json::json;
use tokio::process::Command;

const NAMESPACE: &str = "pulse-dev";
const TIMEOUT: Duration = Duration::from_secs(90);
/// Source file that the test edits, and the message in it.
const HANDLER: &str = "crates/pulse-api/src/wire/accepted.rs";
const MESSAGE: &str = "Event enqueued for processing";
/// Command that Tilt runs in a container to copy files into it.
const TAR: [&str; 6] = ["tar", "-C", "/", "-x", "-f", "-"];

/// A copy of the sources, and the cluster.
struct DevLoopEnv {
    folder: PathBuf,
    node: Node,
    access: Access,
}

impl DevLoopEnv {
    async fn open() -> anyhow::Result<Self> {
        let folder = copy_sources().await?;
        build(&folder).await?;
        let archive = folder.join("pulse-dev.tar");
        run(Command::new(folder.join("scripts/dev-image")).arg(&archive)).await?;
        let stores = folder.join("datastores");
        run(Command::new(repository().join("tests/cluster/images/build")).arg(&stores)).await?;

        let node = Node::start().await?;
        node.load_image(&archive).await?;
        for (store, official) in [("postgres", "postgres:17"), ("redis", "redis:8")] {
            node.load_image(&stores.join(format!("{store}.tar"))).await?;
            let (ours, official) = (format!("localhost/{store}:e2e"), format!("docker.io/library/{official}"));
            node.enter(&["ctr", "-n", "k8s.io", "images", "tag", &ours, &official]).await?;
        }
        apply_crd(node.admin()).await?;
        // The context name that the Tiltfile requires.
        let kubeconfig = folder.join("kubeconfig");
        fs::copy(node.admin().kubeconfig(), &kubeconfig)?;
        let access = Access::read(kubeconfig).await?;
        let current = access.kubectl(&["config", "current-context"]).await?;
        access.kubectl(&["config", "rename-context", current.trim(), "kind-pulse"]).await?;
        Ok(Self { folder, node, access })
    }

    async fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.access.kubectl(&[&["--namespace", NAMESPACE], args].concat()).await
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let ready = ["wait", "pulseingest/main", "--for=condition=Ready", "--timeout=90s"];
        match self.kubectl(&ready).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let pods = self.kubectl(&["get", "pods", "-o", "wide"]).await?;
                let events = self.kubectl(&["get", "events", "--sort-by=.metadata.creationTimestamp"]).await?;
                Err(error.context(format!("{pods}\n{events}")))
            }
        }
    }

    /// Runs the command of a button in the Tiltfile.
    async fn press_button(&self, name: &str) -> anyhow::Result<String> {
        let tiltfile = Tiltfile::read().await?;
        let button = tiltfile.of("local_resource").find(|resource| resource["name"] == name);
        let command = button.and_then(|button| button["cmd"].as_str()).context("the Tiltfile has this button")?;
        let kubectl = program("kubectl").await?;
        let path = format!("{}:/usr/bin:/bin", kubectl.parent().context("a folder")?.display());
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(&self.folder).env("PATH", path);
        shell.env("KUBECONFIG", self.access.kubeconfig()).env("PULSE_URL", self.url());
        run(&mut shell).await.with_context(|| name.to_owned())
    }

    /// URL of the API: the NodePort that kind maps, at the node's address.
    fn url(&self) -> String {
        format!("http://{}:30080", Node::ADDRESS)
    }

    /// Client of the API, with a token issued as the buttons issue it.
    async fn client(&self) -> anyhow::Result<Client> {
        let issue = ["exec", "deployment/main-api", "--", "/pulse", "token", "issue", "--user", "tilt"];
        Ok(Client::new(&self.url(), self.kubectl(&issue).await?.trim()))
    }

    /// Pods that Tilt copies builds into.
    async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.access.client()?, NAMESPACE);
        let mut found = Vec::new();
        for labels in [
            "app.kubernetes.io/name=pulse-operator",
            "app.kubernetes.io/instance=main,app.kubernetes.io/component=api",
            "app.kubernetes.io/instance=main,app.kubernetes.io/component=worker",
            "app.kubernetes.io/instance=main,app.kubernetes.io/component=scheduler",
            "app.kubernetes.io/instance=main,app.kubernetes.io/component=console",
        ] {
            found.extend(pods.list(&ListParams::default().labels(labels)).await?);
        }
        found.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(found)
    }

    /// Copies the newest build into a pod.
    async fn sync(&self, pod: &str) -> anyhow::Result<()> {
        let kubectl = program("kubectl").await?;
        let into = format!("{} -n {NAMESPACE} exec -i {pod} -- {}", kubectl.display(), TAR.join(" "));
        let archive = "tar -C .tilt -c --transform s,^,dev-bin/, pulse";
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", &format!("{archive} | {into}")]).current_dir(&self.folder);
        run(shell.env("KUBECONFIG", self.access.kubeconfig())).await.map(drop)
    }
}

/// Copies the files that a build reads to a folder that stays, so that the next run rebuilds little.
async fn copy_sources() -> anyhow::Result<PathBuf> {
    let folder = repository().join("target/dev-loop");
    for old in ["crates", "tests"] {
        drop(fs::remove_dir_all(folder.join(old)));
    }
    fs::create_dir_all(&folder)?;
    let mut copy = Command::new("cp");
    copy.args(["--archive", "--target-directory"]).arg(&folder).current_dir(repository());
    copy.args([".cargo", ".sqlx", "Cargo.lock", "Cargo.toml", "Dockerfile.dev", "crates", "migrations"]);
    copy.args(["rust-toolchain.toml", "scripts", "tests"]);
    run(&mut copy).await?;
    // The file may be older than the edit of an earlier run, which cargo has built.
    fs::File::options().append(true).open(folder.join(HANDLER))?.set_modified(std::time::SystemTime::now())?;
    Ok(folder)
}

/// Builds as the Tiltfile's `compile` does.
async fn build(folder: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(folder.join("scripts/dev-build"));
    command.env("CARGO_TARGET_DIR", target_dir_for_copy(folder).await?).env_remove("CARGO_INCREMENTAL");
    run(without_cargo_env(&mut command)).await.map(drop)
}

fn edit(folder: &Path, before: &str, after: &str) -> anyhow::Result<()> {
    let file = folder.join(HANDLER);
    let source = fs::read_to_string(&file)?;
    anyhow::ensure!(source.contains(&format!("{before:?}")), "{HANDLER} does not contain {before:?}");
    Ok(fs::write(&file, source.replace(&format!("{before:?}"), &format!("{after:?}")))?)
}

async fn post_event(client: &Client) -> anyhow::Result<String> {
    let event = json!({ "event_name": "page_view", "event_type": "test", "payload": {} });
    let answer = client.post("/api/v1/events", &event).await?;
    anyhow::ensure!(answer.status == 202, "{}", answer.text);
    Ok(answer.json["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_loop_edit_reaches_running_restricted_pods() -> anyhow::Result<()> {
    let env = DevLoopEnv::open().await?;
    let overlay = repository().join(OVERLAY);
    env.access.kubectl(&["apply", "-k", overlay.to_str().context("a path")?]).await?;
    env.wait_until_ready().await?;
    let client = env.client().await?;
    assert_eq!(post_event(&client).await?, MESSAGE);
    let before = env.pods().await?;
    assert_eq!(before.len(), 5, "an operator, and one of each role");

    let mut current = MESSAGE.to_owned();
    for number in 1..=2 {
        let begin = Instant::now();
        let new = format!("{MESSAGE}, edit {number}");
        edit(&env.folder, &current, &new)?;
        build(&env.folder).await?;
        let built = begin.elapsed();
        for pod in &before {
            env.sync(&pod.name_any()).await?;
        }
        let synced = begin.elapsed();
        // The API does not listen between the old build and the new one.
        let edited = async || Ok(post_event(&client).await.is_ok_and(|answer| answer == new));
        eventually("the API returns the edited message", TIMEOUT, edited).await?;
        let answered = begin.elapsed();
        for pod in &before {
            let of_pod = ["exec", &pod.name_any(), "--", "readlink", "/proc/1/exe"];
            let is_new = async || Ok(env.kubectl(&of_pod).await?.trim() == "/dev-bin/pulse");
            eventually("the pod runs the new build", TIMEOUT, is_new).await?;
        }
        env.wait_until_ready().await?;
        println!(
            "edit {number}: compiled after {built:.1?}, in 5 pods after {synced:.1?}, answered after {answered:.1?}"
        );
        current = new;
    }

    let after = env.pods().await?;
    let uids = |pods: &[Pod]| -> Vec<_> { pods.iter().filter_map(ResourceExt::uid).collect() };
    assert_eq!(uids(&after), uids(&before), "no pod was replaced");
    let states = after.iter().filter_map(|pod| pod.status.as_ref()).flat_map(|status| status.container_statuses.iter());
    let restarts: i32 = states.flatten().map(|state| state.restart_count).sum();
    assert_eq!(restarts, 0, "no container was restarted");

    let output = env.press_button("seed").await?;
    assert!(output.contains("processed"), "{output}");
    env.press_button("break-redis").await?;
    env.press_button("reset-data").await?;
    let empty = async || {
        let listed = client.get("/api/v1/events?limit=1").await;
        Ok(listed.is_ok_and(|listed| listed.status == 200 && listed.json["events"] == json!([])))
    };
    eventually("all events are deleted", TIMEOUT, empty).await?;
    env.press_button("seed").await?;
    env.node.stop().await
}
