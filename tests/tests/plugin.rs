//! `kubectl pulse`, by the name that kubectl finds it by, against an API server.

use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use pulse_tests::cluster::{Access, ControlPlane, program};
use pulse_tests::operator::{MIGRATED, OperatorEnv, OperatorProcess, SOON};
use pulse_tests::{binary, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// A person with the plugin on the PATH.
struct KubectlUser {
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

impl KubectlUser {
    fn new(bench: &OperatorEnv, access: &Access) -> anyhow::Result<Self> {
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

async fn start(prefix: &str) -> anyhow::Result<(OperatorEnv, KubectlUser, OperatorProcess)> {
    let bench = OperatorEnv::start(prefix).await?;
    bench.secrets("redis://127.0.0.1:1").await?;
    let operator = bench.operator(&[]).await?;
    let person = KubectlUser::new(&bench, bench.plane.admin())?;
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
    bench.reaches("main", "QueueReachable", "False/ConnectionFailed").await?;
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
    contains_all(&answer.out, &["mode Fixed", "api        2      2        2        0", "\nNext step: start Redis"]);

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

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_migration_is_shown_with_its_last_line_and_the_next_step() -> anyhow::Result<()> {
    let (bench, person, _operator) = start("broken").await?;
    bench.installed("main", json!({})).await?;
    bench.change("main", json!({ "image": { "tag": "0.2.0" } })).await?;
    let job = bench.job("main-migrate-").await?;
    bench.finish_job(&job, 20, "connected\nmigration 1 was applied with another checksum").await?;
    bench.reaches("main", "Stalled", "True/MigrationFailed").await?;
    bench.tells("main", &["MigrationFailed", "MigrationBlocked"]).await?;

    let text = person.good(&["status", "main"]).await?;
    let failed = "exit code 20: migration 1 was applied with another checksum";
    contains_all(&text, &["runs    localhost/pulse:0.1.0\n  wanted  localhost/pulse:0.2.0", failed]);
    contains_all(
        &text,
        &["Next step: see the exit codes; the old version goes on (MigrationFailed: Job main-migrate-"],
    );
    contains_all(&text, &["1× MigrationBlocked, the last ", "ended with exit code 20: migration 1 was applied"]);
    let plan = person.good(&["plan", "main"]).await?;
    contains_all(&plan, &["Schema\n  MigrationFailed: Job main-migrate-", "Objects\n  nothing to change", "1 → 1"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_the_operator_then_does_and_writes_nothing() -> anyhow::Result<()> {
    let (bench, person, operator) = start("preview").await?;
    bench.installed("main", json!({ "api": { "podTemplate": { "nodeSelector": { "disk": "ssd" } } } })).await?;
    bench.settles("main", SOON).await?;
    contains_all(&person.good(&["plan", "main"]).await?, &["the schema is there", "nothing to change", "1 → 1"]);
    assert_eq!(operator.stop().await?, 0);

    let change = json!({
        "api": { "replicas": 4, "podTemplate": { "nodeSelector": null } }, "workers": { "replicas": 3 },
        "image": { "tag": "0.2.0" }, "tasks": { "timeoutSeconds": 77 },
    });
    bench.change("main", change).await?;
    let before = bench.snapshot().await?;
    let text = person.good(&["plan", "main"]).await?;
    let plan: Value = serde_json::from_str(&person.good(&["plan", "main", "--json"]).await?)?;
    assert_eq!(bench.snapshot().await?, before, "a plan writes nothing");
    contains_all(
        &text,
        &["wanted  localhost/pulse:0.2.0, once the schema is there", "update  Deployment main-api; its pods"],
    );
    contains_all(&text, &["spec.template.spec.nodeSelector: {\"disk\":\"ssd\"} → none", "spec.replicas: 2 → 4"]);
    contains_all(&text, &["create  PodDisruptionBudget main-worker", "Workers\n  1 → 3: the object says so"]);
    assert_eq!(plan["unread"], json!([]), "{plan}");
    let changes = plan["changes"].as_array().into_iter().flatten();
    let mut jobs = changes.clone().filter_map(|change| change["object"].as_str()?.strip_prefix("Job "));
    let job = jobs.next().context("a Job")?.to_owned();

    let _operator = bench.operator(&[]).await?;
    assert_eq!(bench.job("main-migrate-").await?.metadata.name, Some(job), "the very Job that was told");
    let scaled = async || Ok(bench.replicas("main-worker").await? == 3 && bench.replicas("main-api").await? == 4);
    eventually("what was planned is done", SOON, scaled).await?;
    let settled = async || Ok(person.good(&["plan", "main"]).await?.contains("nothing to change"));
    eventually("nothing is left to change", SOON, settled).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_what_a_plan_shows_until_it_is_resumed() -> anyhow::Result<()> {
    let (bench, person, _operator) = start("pause").await?;
    bench.installed("main", json!({ "workers": { "autoscaling": { "maxReplicas": 3 } } })).await?;
    contains_all(&person.good(&["resume", "main"]).await?, &["main is not paused"]);
    contains_all(&person.good(&["pause", "main"]).await?, &["main is paused"]);
    bench.change("main", json!({ "api": { "replicas": 5 } })).await?;
    bench.reaches("main", "Ready", "False/Paused").await?;
    let text = person.good(&["status", "main"]).await?;
    contains_all(&text, &["; paused\n", "Next step: `kubectl pulse plan main`, then `kubectl pulse resume main`"]);
    let plan = person.good(&["plan", "main"]).await?;
    contains_all(&plan, &["It is paused", "scale  Deployment main-api\n    spec.replicas: 2 → 5"]);
    contains_all(&plan, &["it follows the queue, which the operator alone reads"]);

    contains_all(&person.good(&["pause", "main", "--scaling"]).await?, &["the number of workers of main is held"]);
    assert_eq!(bench.spec("main").await?["workers"]["autoscaling"]["paused"], "All");
    contains_all(&person.good(&["pause", "main", "--scaling"]).await?, &["paused already"]);
    let resumed = person.good(&["resume", "main"]).await?;
    contains_all(&resumed, &["ended paused and workers.autoscaling.paused (All)"]);
    let spec = bench.spec("main").await?;
    assert_eq!((&spec["paused"], &spec["workers"]["autoscaling"]["paused"]), (&json!(false), &json!("None")));
    assert_eq!(spec["workers"]["autoscaling"]["maxReplicas"], 3, "the rest of it stays");
    eventually("it goes on", SOON, async || Ok(bench.replicas("main-api").await? == 5)).await?;

    bench.create("fixed", json!({})).await?;
    let refused = person.refused(&["pause", "fixed", "--scaling"]).await?;
    contains_all(&refused, &["fixed has no workers.autoscaling"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_plan_that_waits_is_approved() -> anyhow::Result<()> {
    let (bench, person, _operator) = start("approve").await?;
    bench.create("main", json!({ "migrations": { "policy": "Plan" } })).await?;
    contains_all(&person.refused(&["approve", "main"]).await?, &["no plan of main waits"]);
    let (right, wrong) = ("a".repeat(64), "b".repeat(64));
    let job = bench.job("main-plan-").await?;
    bench.finish_job(&job, 0, &MIGRATED.replace("\"x\"", &format!("\"{right}\""))).await?;
    bench.reaches("main", "Stalled", "True/PlanNeedsApproval").await?;

    let text = person.good(&["status", "main"]).await?;
    contains_all(&text, &["Planned, version 3", &format!("plan    {right}: 3 migrations: a")]);
    contains_all(&text, &["Next step: read the plan, then `kubectl pulse approve main`"]);
    let refused = person.refused(&["approve", "main", &wrong]).await?;
    contains_all(&refused, &["another plan waits", &right]);
    assert!(bench.spec("main").await?["migrations"]["approvedPlan"].is_null());

    let approved = person.good(&["approve", "main"]).await?;
    contains_all(
        &approved,
        &["for localhost/pulse:0.1.0: 3 migrations\n  a\n  and 2 more", &format!("approved {right}")],
    );
    assert_eq!(bench.spec("main").await?["migrations"]["approvedPlan"], right);
    bench.migrate("main").await?;
    bench.reaches("main", "Migrated", "True/UpToDate").await?;
    contains_all(&person.refused(&["approve", "main", &right]).await?, &["no plan of main waits"]);

    bench.create("auto", json!({})).await?;
    contains_all(&person.refused(&["approve", "auto"]).await?, &["migrations.policy Auto"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_get_the_object_is_told_which_rights_the_rest_needs() -> anyhow::Result<()> {
    let (bench, _, _operator) = start("rights").await?;
    bench.installed("main", json!({})).await?;
    let account = bench.plane.service_account(&bench.namespace, "reader").await?;
    let role: Role = serde_json::from_value(json!({
        "metadata": { "name": "reader" },
        "rules": [{ "apiGroups": ["pulseboard.dev"], "resources": ["pulseingests"], "verbs": ["get"] }],
    }))?;
    bench.all::<Role>().create(&PostParams::default(), &role).await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": { "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
        "subjects": [{ "kind": "ServiceAccount", "name": "reader", "namespace": bench.namespace }],
    }))?;
    bench.all::<RoleBinding>().create(&PostParams::default(), &binding).await?;
    let reader = KubectlUser::new(&bench, &account)?;
    let needs = |what: &str| format!("forbidden: needs {what} in namespace {}", bench.namespace);

    let text = reader.good(&["status", "main"]).await?;
    contains_all(&text, &["AsExpected", &needs("list pods"), &needs("list events"), "runs    localhost/pulse:0.1.0"]);
    assert_eq!(reader.status("main").await?["pods"], json!({ "unread": needs("list pods") }));
    bench.change("main", json!({ "image": { "tag": "0.2.0" } })).await?;
    let plan = reader.good(&["plan", "main"]).await?;
    for what in
        ["list deployments.apps", "list jobs.batch", "list pods", "get secrets", "list poddisruptionbudgets.policy"]
    {
        contains_all(&plan, &[&needs(what)]);
    }
    contains_all(&plan, &["wanted  localhost/pulse:0.2.0"]);
    assert!(!plan.contains("create  Deployment"), "what was not read is not taken for missing: {plan}");
    let list = reader.refused(&["status"]).await?;
    contains_all(&list, &[&needs("list pulseingests.pulseboard.dev")]);
    let everywhere = reader.refused(&["status", "-A"]).await?;
    contains_all(&everywhere, &["needs list pulseingests.pulseboard.dev in every namespace"]);
    contains_all(&reader.refused(&["pause", "main"]).await?, &[&needs("patch pulseingests.pulseboard.dev")]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_told_what_is_wrong_with_the_name_the_cluster_or_the_kubeconfig() -> anyhow::Result<()> {
    let (bench, person, _operator) = start("wrong").await?;
    bench.create("orders", json!({})).await?;
    let refused = person.refused(&["status", "order"]).await?;
    let expected = format!("no PulseIngest order in namespace {}: did you mean orders?", bench.namespace);
    contains_all(&refused, &[&expected]);
    let refused = person.refused(&["status", "orders", "--context", "nowhere"]).await?;
    contains_all(&refused, &["the kubeconfig cannot be used", "nowhere"]);
    let refused = person.refused(&["status", "orders", "--kubeconfig", "/does/not/exist"]).await?;
    contains_all(&refused, &["the kubeconfig cannot be used", "/does/not/exist"]);
    let mut nobody = Command::new(person.plugin());
    nobody.args(["status"]).env("KUBECONFIG", "/does/not/exist").env_remove("KUBERNETES_SERVICE_HOST");
    let answered = answer(nobody).await?;
    assert_eq!(answered.code, Some(1), "{answered:?}");
    contains_all(&answered.error, &["no cluster", "KUBECONFIG"]);
    {
        let _outage = bench.proxy.outage();
        let away = KubectlUser::new(&bench, bench.proxy.access())?;
        contains_all(&away.refused(&["status", "orders"]).await?, &["the API server cannot be reached"]);
    }
    let empty = ControlPlane::start().await?;
    let there = KubectlUser::new(&bench, empty.admin())?;
    for args in [&["status", "orders"][..], &["status"], &["pause", "orders"]] {
        contains_all(&there.refused(args).await?, &["PulseIngest is not installed", "pulse crd | kubectl apply"]);
    }
    Ok(())
}
