//! The plugin `kubectl pulse` against a real API server, under the file name by which kubectl finds it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use pulse_tests::cluster::{Access, ControlPlane, program};
use pulse_tests::operator::{MIGRATED, OperatorEnv, OperatorProcess, TIMEOUT};
use pulse_tests::{binary, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// A user of a cluster, with a folder that has the plugin as `kubectl-pulse`.
struct KubectlUser {
    access: Access,
    namespace: String,
    plugin_folder: TempDir,
}

/// The result of a command.
#[derive(Debug)]
struct CommandResult {
    exit_code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl KubectlUser {
    fn new(env: &OperatorEnv, access: &Access) -> anyhow::Result<Self> {
        let plugin_folder = tempfile::tempdir()?;
        std::os::unix::fs::symlink(binary(), plugin_folder.path().join("kubectl-pulse"))?;
        Ok(Self { access: access.clone(), namespace: env.namespace.clone(), plugin_folder })
    }

    fn plugin(&self) -> PathBuf {
        self.plugin_folder.path().join("kubectl-pulse")
    }

    async fn pulse(&self, args: &[&str]) -> anyhow::Result<CommandResult> {
        let mut command = Command::new(self.plugin());
        command.args(args).args(["--namespace", &self.namespace]).env("KUBECONFIG", self.access.kubeconfig());
        run(command).await
    }

    /// Runs a command that has to succeed; returns its standard output.
    async fn run_ok(&self, args: &[&str]) -> anyhow::Result<String> {
        let result = self.pulse(args).await?;
        anyhow::ensure!(result.exit_code == Some(0), "{args:?}: {result:?}");
        Ok(result.stdout)
    }

    /// Runs a command that has to fail with exit code 1; returns its standard error.
    async fn run_refused(&self, args: &[&str]) -> anyhow::Result<String> {
        let result = self.pulse(args).await?;
        anyhow::ensure!(result.exit_code == Some(1), "{args:?}: {result:?}");
        Ok(result.stderr)
    }

    async fn status(&self, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.run_ok(&["status", name, "--json"]).await?)?)
    }
}

async fn run(mut command: Command) -> anyhow::Result<CommandResult> {
    let output = command.kill_on_drop(true).output().await?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(CommandResult { exit_code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) })
}

async fn start(prefix: &str) -> anyhow::Result<(OperatorEnv, KubectlUser, OperatorProcess)> {
    let env = OperatorEnv::start(prefix).await?;
    env.create_secrets("redis://127.0.0.1:1").await?;
    let operator = env.start_operator(&[]).await?;
    let user = KubectlUser::new(&env, env.plane.admin())?;
    Ok((env, user, operator))
}

fn assert_contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_runs_the_plugin_and_shows_status() -> anyhow::Result<()> {
    let (env, user, _operator) = start("status").await?;
    env.install("main", json!({})).await?;
    env.wait_for_condition("main", "QueueReachable", "False/ConnectionFailed").await?;
    let mut kubectl = Command::new(program("kubectl").await?);
    let path = std::env::join_paths([user.plugin_folder.path(), Path::new("/usr/bin"), Path::new("/bin")])?;
    kubectl.args(["pulse", "status", "main", "-n", &env.namespace]).env("PATH", path);
    kubectl.env("KUBECONFIG", user.access.kubeconfig()).env("HOME", user.plugin_folder.path());
    let result = run(kubectl).await?;
    assert_eq!(result.exit_code, Some(0), "{result:?}");
    let title = format!("PulseIngest {}/main, ", env.namespace);
    assert_contains_all(
        &result.stdout,
        &[&title, "AsExpected", "active   localhost/pulse:0.1.0", "Done, version 3, Job main-migrate-"],
    );
    assert_contains_all(
        &result.stdout,
        &["mode Fixed", "api        2      2        2        0", "\nNext step: start Redis"],
    );

    let status = user.status("main").await?;
    assert_eq!((&status["upToDate"], &status["paused"]), (&json!(true), &json!(false)), "{status}");
    assert_eq!(status["api"]["ready"], 2, "{status}");
    let all = user.run_ok(&["status"]).await?;
    assert_contains_all(
        &all,
        &["NAMESPACE", "NEXT STEP", "main  True   AsExpected  0.1.0    2/2  1/1", "start Redis, or correct its Secret"],
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_migration_is_shown_with_its_last_line_and_next_step() -> anyhow::Result<()> {
    let (env, user, _operator) = start("broken").await?;
    env.install("main", json!({})).await?;
    env.patch_spec("main", json!({ "image": { "tag": "0.2.0" } })).await?;
    let job = env.wait_for_job("main-migrate-").await?;
    env.finish_job(&job, 20, "connected\nmigration 1 was applied with another checksum").await?;
    env.wait_for_condition("main", "Stalled", "True/MigrationFailed").await?;
    env.wait_for_events("main", &["MigrationFailed", "MigrationBlocked"]).await?;

    let text = user.run_ok(&["status", "main"]).await?;
    let failed = "exit code 20: migration 1 was applied with another checksum";
    assert_contains_all(&text, &["active   localhost/pulse:0.1.0\n  desired  localhost/pulse:0.2.0", failed]);
    assert_contains_all(
        &text,
        &["Next step: see the exit codes; the old version keeps running (MigrationFailed: Job main-migrate-"],
    );
    assert_contains_all(&text, &["1× MigrationBlocked, last ", "ended with exit code 20: migration 1 was applied"]);
    let plan = user.run_ok(&["plan", "main"]).await?;
    assert_contains_all(
        &plan,
        &["Schema\n  MigrationFailed: Job main-migrate-", "Objects\n  nothing to change", "1 → 1"],
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_shows_what_the_operator_will_do_and_writes_nothing() -> anyhow::Result<()> {
    let (env, user, operator) = start("preview").await?;
    env.install("main", json!({ "api": { "podTemplate": { "nodeSelector": { "disk": "ssd" } } } })).await?;
    env.wait_until_reconciled("main", TIMEOUT).await?;
    assert_contains_all(
        &user.run_ok(&["plan", "main"]).await?,
        &["Schema\n  up to date", "nothing to change", "1 → 1"],
    );
    assert_eq!(operator.stop().await?, 0);

    let change = json!({
        "api": { "replicas": 4, "podTemplate": { "nodeSelector": null } }, "workers": { "replicas": 3 },
        "image": { "tag": "0.2.0" }, "tasks": { "timeoutSeconds": 77 },
    });
    env.patch_spec("main", change).await?;
    let before = env.snapshot().await?;
    let text = user.run_ok(&["plan", "main"]).await?;
    let plan: Value = serde_json::from_str(&user.run_ok(&["plan", "main", "--json"]).await?)?;
    assert_eq!(env.snapshot().await?, before, "a plan writes nothing");
    assert_contains_all(
        &text,
        &["desired  localhost/pulse:0.2.0, once the schema is migrated", "update  Deployment main-api; its pods"],
    );
    assert_contains_all(&text, &["spec.template.spec.nodeSelector: {\"disk\":\"ssd\"} → none", "spec.replicas: 2 → 4"]);
    assert_contains_all(&text, &["create  PodDisruptionBudget main-worker", "Workers\n  1 → 3: set in the spec"]);
    assert_eq!(plan["unavailable"], json!([]), "{plan}");
    let changes = plan["changes"].as_array().into_iter().flatten();
    let mut jobs = changes.clone().filter_map(|change| change["object"].as_str()?.strip_prefix("Job "));
    let job = jobs.next().context("the plan has no Job")?.to_owned();

    let _operator = env.start_operator(&[]).await?;
    assert_eq!(
        env.wait_for_job("main-migrate-").await?.metadata.name,
        Some(job),
        "the operator creates the Job that the plan named"
    );
    let scaled = async || Ok(env.replicas("main-worker").await? == 3 && env.replicas("main-api").await? == 4);
    eventually("the planned changes are applied", TIMEOUT, scaled).await?;
    let no_changes = async || Ok(user.run_ok(&["plan", "main"]).await?.contains("nothing to change"));
    eventually("no change is left", TIMEOUT, no_changes).await
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_blocks_planned_changes_until_resume() -> anyhow::Result<()> {
    let (env, user, _operator) = start("pause").await?;
    env.install("main", json!({ "workers": { "autoscaling": { "maxReplicas": 3 } } })).await?;
    assert_contains_all(&user.run_ok(&["resume", "main"]).await?, &["main is not paused"]);
    assert_contains_all(&user.run_ok(&["pause", "main"]).await?, &["main is paused"]);
    env.patch_spec("main", json!({ "api": { "replicas": 5 } })).await?;
    env.wait_for_condition("main", "Ready", "False/Paused").await?;
    let text = user.run_ok(&["status", "main"]).await?;
    assert_contains_all(
        &text,
        &["; paused\n", "Next step: `kubectl pulse plan main`, then `kubectl pulse resume main`"],
    );
    let plan = user.run_ok(&["plan", "main"]).await?;
    assert_contains_all(&plan, &["Paused: no change is made", "scale  Deployment main-api\n    spec.replicas: 2 → 5"]);
    assert_contains_all(&plan, &["follows the queue, which only the operator reads"]);

    assert_contains_all(&user.run_ok(&["pause", "main", "--scaling"]).await?, &["scaling of main is paused"]);
    assert_eq!(env.spec("main").await?["workers"]["autoscaling"]["paused"], "All");
    assert_contains_all(&user.run_ok(&["pause", "main", "--scaling"]).await?, &["already paused"]);
    let resumed = user.run_ok(&["resume", "main"]).await?;
    assert_contains_all(&resumed, &["cleared paused and workers.autoscaling.paused (was All)"]);
    let spec = env.spec("main").await?;
    assert_eq!((&spec["paused"], &spec["workers"]["autoscaling"]["paused"]), (&json!(false), &json!("None")));
    assert_eq!(spec["workers"]["autoscaling"]["maxReplicas"], 3, "the other fields are kept");
    eventually("the operator applies the change after the resume", TIMEOUT, async || {
        Ok(env.replicas("main-api").await? == 5)
    })
    .await?;

    env.create("fixed", json!({})).await?;
    let refused = user.run_refused(&["pause", "fixed", "--scaling"]).await?;
    assert_contains_all(&refused, &["fixed has no workers.autoscaling"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn approve_accepts_only_the_waiting_plan() -> anyhow::Result<()> {
    let (env, user, _operator) = start("approve").await?;
    env.create("main", json!({ "migrations": { "policy": "Plan" } })).await?;
    assert_contains_all(&user.run_refused(&["approve", "main"]).await?, &["no plan of main waits"]);
    let (right, wrong) = ("a".repeat(64), "b".repeat(64));
    let job = env.wait_for_job("main-plan-").await?;
    env.finish_job(&job, 0, &MIGRATED.replace("\"x\"", &format!("\"{right}\""))).await?;
    env.wait_for_condition("main", "Reconciling", "True/PlanNeedsApproval").await?;

    let text = user.run_ok(&["status", "main"]).await?;
    assert_contains_all(&text, &["Planned, version 3", &format!("plan    {right}: 3 migrations: a")]);
    assert_contains_all(&text, &["Next step: read the plan, then `kubectl pulse approve main`"]);
    let refused = user.run_refused(&["approve", "main", &wrong]).await?;
    assert_contains_all(&refused, &["another plan waits", &right]);
    assert!(env.spec("main").await?["migrations"]["approvedPlan"].is_null());

    let approved = user.run_ok(&["approve", "main"]).await?;
    assert_contains_all(
        &approved,
        &["for localhost/pulse:0.1.0: 3 migrations\n  a\n  and 2 more", &format!("approved {right}")],
    );
    assert_eq!(env.spec("main").await?["migrations"]["approvedPlan"], right);
    env.finish_migration("main").await?;
    env.wait_for_condition("main", "Migrated", "True/UpToDate").await?;
    assert_contains_all(&user.run_refused(&["approve", "main", &right]).await?, &["no plan of main waits"]);

    env.create("auto", json!({})).await?;
    assert_contains_all(&user.run_refused(&["approve", "auto"]).await?, &["migrations.policy Auto"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_permissions_are_named_by_every_command() -> anyhow::Result<()> {
    let (env, _, _operator) = start("permissions").await?;
    env.install("main", json!({})).await?;
    let account = env.plane.service_account(&env.namespace, "reader").await?;
    let role: Role = serde_json::from_value(json!({
        "metadata": { "name": "reader" },
        "rules": [{ "apiGroups": ["pulseboard.dev"], "resources": ["pulseingests"], "verbs": ["get"] }],
    }))?;
    env.api::<Role>().create(&PostParams::default(), &role).await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
        "subjects": [{ "kind": "ServiceAccount", "name": "reader", "namespace": env.namespace }],
    }))?;
    env.api::<RoleBinding>().create(&PostParams::default(), &binding).await?;
    let reader = KubectlUser::new(&env, &account)?;
    let needs = |what: &str| format!("forbidden: needs {what} in namespace {}", env.namespace);

    let text = reader.run_ok(&["status", "main"]).await?;
    assert_contains_all(
        &text,
        &["AsExpected", &needs("list pods"), &needs("list events"), "active   localhost/pulse:0.1.0"],
    );
    assert_eq!(reader.status("main").await?["pods"], json!({ "error": needs("list pods") }));
    env.patch_spec("main", json!({ "image": { "tag": "0.2.0" } })).await?;
    let plan = reader.run_ok(&["plan", "main"]).await?;
    for what in
        ["list deployments.apps", "list jobs.batch", "list pods", "get secrets", "list poddisruptionbudgets.policy"]
    {
        assert_contains_all(&plan, &[&needs(what)]);
    }
    assert_contains_all(&plan, &["desired  localhost/pulse:0.2.0"]);
    assert!(!plan.contains("create  Deployment"), "an unreadable object does not count as missing: {plan}");
    let list = reader.run_refused(&["status"]).await?;
    assert_contains_all(&list, &[&needs("list pulseingests.pulseboard.dev")]);
    let everywhere = reader.run_refused(&["status", "-A"]).await?;
    assert_contains_all(&everywhere, &["needs list pulseingests.pulseboard.dev in every namespace"]);
    assert_contains_all(&reader.run_refused(&["pause", "main"]).await?, &[&needs("patch pulseingests.pulseboard.dev")]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_errors_name_the_wrong_instance_cluster_or_kubeconfig() -> anyhow::Result<()> {
    let (env, user, _operator) = start("wrong").await?;
    env.create("orders", json!({})).await?;
    let refused = user.run_refused(&["status", "order"]).await?;
    let expected = format!("no PulseIngest order in namespace {}: did you mean orders?", env.namespace);
    assert_contains_all(&refused, &[&expected]);
    let refused = user.run_refused(&["status", "orders", "--context", "nowhere"]).await?;
    assert_contains_all(&refused, &["the kubeconfig cannot be used", "nowhere"]);
    let refused = user.run_refused(&["status", "orders", "--kubeconfig", "/does/not/exist"]).await?;
    assert_contains_all(&refused, &["the kubeconfig cannot be used", "/does/not/exist"]);
    let mut without_cluster = Command::new(user.plugin());
    without_cluster.args(["status"]).env("KUBECONFIG", "/does/not/exist").env_remove("KUBERNETES_SERVICE_HOST");
    let result = run(without_cluster).await?;
    assert_eq!(result.exit_code, Some(1), "{result:?}");
    assert_contains_all(&result.stderr, &["no cluster", "KUBECONFIG"]);
    {
        let _outage = env.proxy.outage();
        let user = KubectlUser::new(&env, env.proxy.access())?;
        assert_contains_all(&user.run_refused(&["status", "orders"]).await?, &["the API server cannot be reached"]);
    }
    let without_crd = ControlPlane::start().await?;
    let user = KubectlUser::new(&env, without_crd.admin())?;
    for args in [&["status", "orders"][..], &["status"], &["pause", "orders"]] {
        assert_contains_all(
            &user.run_refused(args).await?,
            &["PulseIngest is not installed", "pulse crd | kubectl apply"],
        );
    }
    Ok(())
}
