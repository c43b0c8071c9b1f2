//! `kubectl pulse`, by the name that kubectl finds it by, against an API server.

use std::path::{Path, PathBuf};

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use pulse_tests::binary;
use pulse_tests::cluster::{Access, program};
use pulse_tests::operator::{Bench, MIGRATED, OperatorProcess};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// A person with the plugin on the PATH.
struct Person {
    access: Access,
    namespace: String,
    path: TempDir,
}

/// What a command came to.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    out: String,
    error: String,
}

impl Person {
    fn new(bench: &Bench, access: &Access) -> anyhow::Result<Self> {
        let path = tempfile::tempdir()?;
        std::os::unix::fs::symlink(binary(), path.path().join("kubectl-pulse"))?;
        Ok(Self { access: access.clone(), namespace: bench.namespace.clone(), path })
    }

    fn plugin(&self) -> PathBuf {
        self.path.path().join("kubectl-pulse")
    }

    async fn pulse(&self, args: &[&str]) -> anyhow::Result<Answer> {
        let mut command = Command::new(self.plugin());
        command.args(args).args(["--namespace", &self.namespace]).env("KUBECONFIG", self.access.kubeconfig());
        answer(command).await
    }

    /// What a command prints that does what it should.
    async fn good(&self, args: &[&str]) -> anyhow::Result<String> {
        let answer = self.pulse(args).await?;
        anyhow::ensure!(answer.code == Some(0), "{args:?}: {answer:?}");
        Ok(answer.out)
    }

    /// What a command says that does nothing.
    async fn refused(&self, args: &[&str]) -> anyhow::Result<String> {
        let answer = self.pulse(args).await?;
        anyhow::ensure!(answer.code == Some(1), "{args:?}: {answer:?}");
        Ok(answer.error)
    }

    async fn status(&self, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.good(&["status", name, "--json"]).await?)?)
    }
}

async fn answer(mut command: Command) -> anyhow::Result<Answer> {
    let output = command.kill_on_drop(true).output().await?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer { code: output.status.code(), out: text(output.stdout), error: text(output.stderr) })
}

async fn start(prefix: &str) -> anyhow::Result<(Bench, Person, OperatorProcess)> {
    let bench = Bench::start(prefix).await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    let operator = bench.operator(&[]).await?;
    let person = Person::new(&bench, bench.plane.admin())?;
    Ok((bench, person, operator))
}

fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_finds_the_plugin_and_it_shows_how_an_object_is() -> anyhow::Result<()> {
    let (bench, person, _operator) = start("status").await?;
    bench.installed("main", json!({})).await?;
    let mut kubectl = Command::new(program("kubectl").await?);
    let path = std::env::join_paths([person.path.path(), Path::new("/usr/bin"), Path::new("/bin")])?;
    kubectl.args(["pulse", "status", "main", "-n", &bench.namespace]).env("PATH", path);
    kubectl.env("KUBECONFIG", person.access.kubeconfig()).env("HOME", person.path.path());
    let answer = answer(kubectl).await?;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let title = format!("PulseIngest {}/main, ", bench.namespace);
    contains_all(
        &answer.out,
        &[&title, "AsExpected", "runs    localhost/pulse:0.1.0", "Done, version 3, Job main-migrate-"],
    );
    contains_all(&answer.out, &["mode Fixed", "api        2      2        2        0", "\nNext step: start it"]);

    let status = person.status("main").await?;
    assert_eq!((&status["upToDate"], &status["paused"]), (&json!(true), &json!(false)), "{status}");
    assert_eq!(status["api"]["ready"], 2, "{status}");
    let all = person.good(&["status"]).await?;
    contains_all(
        &all,
        &["NAMESPACE", "NEXT STEP", "main  True   AsExpected  0.1.0    2/2  1/1", "start Redis, or correct its Secret"],
    );
    Ok(())
}
