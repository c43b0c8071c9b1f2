//! What README tells a platform team to type, and what `pulse check --pre` tells it beforehand.

use std::process::Output;

use anyhow::Context;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::PostParams;
use pulse_tests::binary;
use pulse_tests::cluster::{Access, program};
use pulse_tests::operator::OperatorEnv;
use pulse_tests::repository;
use serde_json::{Value, json};
use tokio::process::Command;

/// The kubeconfig of a person who works in the bench's namespace.
async fn person(bench: &OperatorEnv, folder: &std::path::Path) -> anyhow::Result<Access> {
    let path = folder.join("kubeconfig");
    std::fs::copy(bench.plane.admin().kubeconfig(), &path)?;
    let access = Access::read(path).await?;
    access.kubectl(&["config", "set-context", "--current", "--namespace", &bench.namespace]).await?;
    Ok(access)
}

async fn check(access: &Access, namespace: &str) -> anyhow::Result<(Output, Value)> {
    let mut command = Command::new(binary());
    command.args(["check", "--pre", "--json", "--namespace", namespace]).env("KUBECONFIG", access.kubeconfig());
    let output = command.output().await?;
    let answer = serde_json::from_slice(&output.stdout).context("one line of JSON")?;
    Ok((output, answer))
}

fn failed(answer: &Value) -> Vec<String> {
    let checks = answer["checks"].as_array().into_iter().flatten().filter(|check| check["ok"] == false);
    checks.map(|check| format!("{}: {} -> {}", check["name"], check["value"], check["fix"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubernetes_commands_of_readme_work() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("readme").await?;
    let folder = tempfile::tempdir()?;
    let person = person(&bench, folder.path()).await?;
    let _operator = bench.operator(&[]).await?;
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let (_, section) = readme.split_once("\n### By kubectl\n").context("README has the section")?;
    let section = section.split_once("\n##").map_or(section, |(section, _)| section);
    let block: String = section.split_inclusive('\n').filter(|line| line.starts_with("    ")).collect();
    anyhow::ensure!(!block.is_empty(), "it has commands");
    let kubectl = program("kubectl").await?;
    let path = format!("{}:{}", kubectl.parent().context("a folder")?.display(), "/usr/local/bin:/usr/bin:/bin");
    let mut bash = Command::new("bash");
    bash.args(["-euc", &block]).env("PATH", path).env("KUBECONFIG", person.kubeconfig()).env("HOME", folder.path());
    let typed = bash.current_dir(repository()).kill_on_drop(true).output();
    let (typed, cluster) = tokio::join!(typed, async {
        bench.migrate("main").await?;
        bench.rollout("main").await
    });
    cluster?;
    let typed = typed?;
    let text = String::from_utf8_lossy(&typed.stdout).into_owned();
    assert!(typed.status.success(), "{text}{}", String::from_utf8_lossy(&typed.stderr));
    assert!(text.contains("condition met"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_names_what_is_missing_with_its_fix() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("preflight").await?;
    let (output, answer) = check(bench.plane.admin(), &bench.namespace).await?;
    assert_eq!((output.status.code(), failed(&answer)), (Some(0), vec![]), "{answer}");

    bench.create("main", json!({})).await?;
    bench.secret("main-redis", "another", "redis://127.0.0.1:1").await?;
    let (output, answer) = check(bench.plane.admin(), &bench.namespace).await?;
    let failures = failed(&answer).join("\n");
    assert_eq!(output.status.code(), Some(25));
    assert!(failures.contains("Secret main-database does not exist"), "{failures}");
    assert!(failures.contains("Secret main-redis has no key url"), "{failures}");
    assert!(failures.contains("kubectl -n "), "{failures}");

    let account = bench.plane.service_account(&bench.namespace, "pulse-operator").await?;
    let (_, answer) = check(&account, &bench.namespace).await?;
    assert!(failed(&answer).iter().any(|line| line.contains("may not create deployments.apps")), "{answer}");
    let roles: Api<Role> = bench.all();
    roles.create(&PostParams::default(), &pulse_operator::rbac::role(true)).await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "pulse-operator" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pulse-operator" },
        "subjects": [{ "kind": "ServiceAccount", "name": "pulse-operator", "namespace": bench.namespace }],
    }))?;
    bench.all::<RoleBinding>().create(&PostParams::default(), &binding).await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    let (_, answer) = check(&account, &bench.namespace).await?;
    assert_eq!(failed(&answer), [""; 0], "the generated Role is enough");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_is_told() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("away").await?;
    let _outage = bench.proxy.outage();
    let (output, answer) = check(bench.proxy.access(), &bench.namespace).await?;
    assert_eq!(output.status.code(), Some(25));
    assert!(failed(&answer)[0].contains("unreachable"), "{answer}");
    Ok(())
}
