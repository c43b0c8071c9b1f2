//! The kubectl commands of README, and `pulse check --pre`.

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

/// A kubeconfig whose current context has the test's namespace.
async fn user_access(env: &OperatorEnv, folder: &std::path::Path) -> anyhow::Result<Access> {
    let path = folder.join("kubeconfig");
    std::fs::copy(env.plane.admin().kubeconfig(), &path)?;
    let access = Access::read(path).await?;
    access.kubectl(&["config", "set-context", "--current", "--namespace", &env.namespace]).await?;
    Ok(access)
}

async fn check(access: &Access, namespace: &str) -> anyhow::Result<(Output, Value)> {
    let mut command = Command::new(binary());
    command.args(["check", "--pre", "--json", "--namespace", namespace]).env("KUBECONFIG", access.kubeconfig());
    let output = command.output().await?;
    let answer = serde_json::from_slice(&output.stdout).context("the output is not JSON")?;
    Ok((output, answer))
}

fn failed_checks(answer: &Value) -> Vec<String> {
    let checks = answer["checks"].as_array().into_iter().flatten().filter(|check| check["ok"] == false);
    checks.map(|check| format!("{}: {} -> {}", check["name"], check["value"], check["fix"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn readme_kubectl_commands_work() -> anyhow::Result<()> {
    let env = OperatorEnv::start("readme").await?;
    let folder = tempfile::tempdir()?;
    let user = user_access(&env, folder.path()).await?;
    let _operator = env.start_operator(&[]).await?;
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let (_, section) = readme.split_once("\n### By kubectl\n").context("README has no section \"By kubectl\"")?;
    let section = section.split_once("\n##").map_or(section, |(section, _)| section);
    let block: String = section.split_inclusive('\n').filter(|line| line.starts_with("    ")).collect();
    anyhow::ensure!(!block.is_empty(), "the section has no commands");
    let kubectl = program("kubectl").await?;
    let path = format!(
        "{}:{}",
        kubectl.parent().context("kubectl has no parent folder")?.display(),
        "/usr/local/bin:/usr/bin:/bin"
    );
    let mut bash = Command::new("bash");
    bash.args(["-euc", &block]).env("PATH", path).env("KUBECONFIG", user.kubeconfig()).env("HOME", folder.path());
    let commands = bash.current_dir(repository()).kill_on_drop(true).output();
    let (output, cluster) = tokio::join!(commands, async {
        env.finish_migration("main").await?;
        env.finish_rollout("main").await
    });
    cluster?;
    let output = output?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("condition met"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_names_what_is_missing_and_its_fix() -> anyhow::Result<()> {
    let env = OperatorEnv::start("preflight").await?;
    let (output, answer) = check(env.plane.admin(), &env.namespace).await?;
    assert_eq!((output.status.code(), failed_checks(&answer)), (Some(0), vec![]), "{answer}");

    env.create("main", json!({})).await?;
    env.apply_secret("main-redis", "another", "redis://127.0.0.1:1").await?;
    let (output, answer) = check(env.plane.admin(), &env.namespace).await?;
    let failures = failed_checks(&answer).join("\n");
    assert_eq!(output.status.code(), Some(25));
    assert!(failures.contains("Secret main-database does not exist"), "{failures}");
    assert!(failures.contains("Secret main-redis has no key url"), "{failures}");
    assert!(failures.contains("kubectl -n "), "{failures}");

    let account = env.plane.service_account(&env.namespace, "pulse-operator").await?;
    let (_, answer) = check(&account, &env.namespace).await?;
    assert!(failed_checks(&answer).iter().any(|line| line.contains("cannot create deployments.apps")), "{answer}");
    let roles: Api<Role> = env.api();
    roles.create(&PostParams::default(), &pulse_operator::rbac::role(true)).await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "pulse-operator" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pulse-operator" },
        "subjects": [{ "kind": "ServiceAccount", "name": "pulse-operator", "namespace": env.namespace }],
    }))?;
    env.api::<RoleBinding>().create(&PostParams::default(), &binding).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    let (_, answer) = check(&account, &env.namespace).await?;
    assert_eq!(failed_checks(&answer), [""; 0], "the generated Role grants all that is needed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_reports_an_unreachable_api_server() -> anyhow::Result<()> {
    let env = OperatorEnv::start("unreachable").await?;
    let _outage = env.proxy.outage();
    let (output, answer) = check(env.proxy.access(), &env.namespace).await?;
    assert_eq!(output.status.code(), Some(25));
    assert!(failed_checks(&answer)[0].contains("unreachable"), "{answer}");
    Ok(())
}
