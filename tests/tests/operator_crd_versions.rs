//! The operator with a CRD of an older or of a newer version. The CRD is shared, so one test runs after the other.

use std::process::Stdio;

use anyhow::Context;
use k8s_openapi::api::core::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use pulse_tests::cluster::{ControlPlane, program};
use pulse_tests::operator::{OperatorEnv, OperatorProcess, TIMEOUT, apply_crd, apply_crd_version, crd_with, minimal};
use pulse_tests::{Client, binary, eventually, repository};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

const REDIS: &str = "redis://127.0.0.1:1";

async fn one_at_a_time() -> MutexGuard<'static, ()> {
    static CRD: Mutex<()> = Mutex::const_new(());
    CRD.lock().await
}

/// The properties of an object in the schema.
fn fields<'a>(schema: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(schema, |schema, name| &mut schema[*name]["properties"])
}

/// Removes a field, also from the defaults that contain it.
fn remove(schema: &mut Value, path: &[&str], field: &str) {
    let (object, parents) = path.split_last().map_or(("", path), |(object, parents)| (*object, parents));
    let object = &mut fields(schema, parents)[object];
    for fields in ["properties", "default"] {
        if let Some(fields) = object[fields].as_object_mut() {
            fields.remove(field);
        }
    }
}

async fn metric(operator: &OperatorProcess, line: &str) -> anyhow::Result<bool> {
    Ok(Client::new(&operator.admin, "").get("/metrics").await?.text.lines().any(|found| found == line))
}

/// The message of a condition, or null.
fn message(status: &Value, condition: &str) -> Value {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.find(|found| found["type"] == condition).map_or(Value::Null, |found| found["message"].clone())
}

/// Runs a command with `pulse` and `kubectl`, as an administrator.
async fn run_as_administrator(plane: &ControlPlane, command: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for (name, program) in [("pulse", binary()), ("kubectl", program("kubectl").await?)] {
        std::os::unix::fs::symlink(program, folder.path().join(name))?;
    }
    let mut bash = Command::new("/bin/bash");
    bash.args(["-euo", "pipefail", "-c", command]).env("PATH", folder.path()).stdin(Stdio::null());
    let output = bash.env("KUBECONFIG", plane.admin().kubeconfig()).kill_on_drop(true).output().await?;
    anyhow::ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What `pulse check --pre` prints.
async fn preflight(env: &OperatorEnv) -> anyhow::Result<String> {
    let mut command = Command::new(binary());
    command.args(["check", "--pre", "--json", "--namespace", &env.namespace]);
    let output = command.env("KUBECONFIG", env.plane.admin().kubeconfig()).output().await?;
    Ok(String::from_utf8(output.stdout)?)
}

fn status_writes(env: &OperatorEnv) -> usize {
    env.proxy.count(|logged| logged.call.resource == "pulseingests/status")
}

#[tokio::test(flavor = "multi_thread")]
async fn status_stays_current_on_an_older_crd_until_it_is_updated() -> anyhow::Result<()> {
    let _alone = one_at_a_time().await;
    let env = OperatorEnv::start("older").await?;
    let older = crd_with(|schema| {
        // Always, sometimes and never written.
        remove(schema, &["status", "workers"], "terminating");
        remove(schema, &["status"], "pendingChanges");
        remove(schema, &["spec", "workers"], "concurrency");
    })?;
    apply_crd_version(env.plane.admin(), &older).await?;
    env.create_secrets(REDIS).await?;
    let operator = env.start_operator(&[]).await?;
    env.with_simulator(env.create_and_wait("main")).await?;
    env.wait_for_condition("main", "CRDOutdated", "True/FieldsMissing").await?;
    env.wait_for_events("main", &["CRDOutdated"]).await?;
    let status = env.status("main").await?;
    assert_eq!(status["workers"]["terminating"], Value::Null, "the CRD does not have it");
    let outdated = message(&status, "CRDOutdated").as_str().unwrap_or_default().to_owned();
    for field in ["spec.workers.concurrency", "status.pendingChanges", "status.workers.terminating"] {
        assert!(outdated.contains(&format!("{field}: the field is removed")), "{outdated}");
    }
    assert!(metric(&operator, "pulse_operator_crd_outdated 1").await?);
    let checked = preflight(&env).await?;
    assert!(checked.contains("of an older version: spec.workers.concurrency"), "{checked}");

    let (writes, reconciles) = (status_writes(&env), operator.reconcile_count().await);
    let again = async || Ok(operator.reconcile_count().await >= reconciles + 2);
    eventually("it is reconciled again", TIMEOUT, again).await?;
    assert_eq!(status_writes(&env), writes, "nothing changes, so the status is not written");
    let edit = json!({ "paused": true, "api": { "replicas": 3 } });
    env.patch_spec("main", edit).await?;
    env.wait_for_condition("main", "Ready", "False/Paused").await?;

    let command = outdated.split('`').nth(1).context("the message has no command")?;
    run_as_administrator(env.plane, command).await?;
    env.wait_for_condition("main", "CRDOutdated", "").await?;
    let status = env.status("main").await?;
    assert_eq!(status["workers"]["terminating"], 0, "{status:#}");
    assert_eq!(status["pendingChanges"].as_array().map(Vec::len), Some(1), "{status:#}");
    assert!(metric(&operator, "pulse_operator_crd_outdated 0").await?);
    let checked = preflight(&env).await?;
    assert!(!checked.contains("older version"), "{checked}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_newer_crd_hold_no_others() -> anyhow::Result<()> {
    let _alone = one_at_a_time().await;
    let env = OperatorEnv::start("newer").await?;
    let newer = crd_with(|schema| {
        fields(schema, &["spec", "api"])["flavour"] = json!({ "type": "string", "default": "plain" });
        fields(schema, &["status"])["progress"] = json!({ "type": "integer" });
        let modes = &mut fields(schema, &["spec", "workers", "autoscaling"])["mode"]["enum"];
        modes.as_array_mut().into_iter().for_each(|modes| modes.push(json!("Predictive")));
        // Its rules know the new mode.
        fields(schema, &["spec", "workers"])["autoscaling"]["x-kubernetes-validations"] = json!([]);
    })?;
    apply_crd_version(env.plane.admin(), &newer).await?;
    env.create_secrets(REDIS).await?;
    env.create("main", json!({ "api": { "flavour": "mild" } })).await?;
    let progress =
        json!({ "apiVersion": "pulseboard.dev/v1alpha1", "kind": "PulseIngest", "status": { "progress": 7 } });
    let by_newer = PatchParams::apply("newer");
    env.instances().patch_status("main", &by_newer, &Patch::Apply(&progress)).await?;
    env.create("next", json!({ "workers": { "autoscaling": { "mode": "Predictive", "maxReplicas": 5 } } })).await?;

    let operator = env.start_operator(&[]).await?;
    let unreadable = format!("pulse_operator_unreadable{{namespace=\"{}\",name=\"next\"}} 1", env.namespace);
    let lifecycle = async {
        env.wait_until_reconciled("main", TIMEOUT).await?;
        assert_eq!(env.status("main").await?["progress"], 7, "another manager's field stays");
        assert_eq!(env.spec("main").await?["api"]["flavour"], "mild");
        assert_eq!(env.condition("main", "CRDOutdated").await?, "");
        env.wait_for_events("next", &["ObjectUnreadable"]).await?;
        assert!(metric(&operator, &unreadable).await?);
        let events = env.api::<Event>().list(&ListParams::default()).await?;
        let mut notes = events.iter().filter_map(|event| event.message.as_deref());
        assert!(notes.any(|note| note.contains("Predictive") && note.contains("upgrade the operator")));

        env.patch_spec("next", json!({ "workers": { "autoscaling": { "mode": "Internal" } } })).await?;
        env.wait_until_reconciled("next", TIMEOUT).await?;
        assert!(!metric(&operator, &unreadable).await?);
        Ok(())
    };
    env.with_simulator(lifecycle).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_objects_are_migrated_as_documented() -> anyhow::Result<()> {
    let plane = ControlPlane::start().await?;
    apply_crd(plane.admin()).await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("main.json");
    std::fs::write(&file, minimal("main")?.to_string())?;
    plane.admin().kubectl(&["create", "-f", file.to_str().context("the path is not UTF-8")?]).await?;

    // Two versions with the same fields, of which the new one is stored.
    let mut crd = pulse_crd::crd();
    let mut next = crd.spec.versions[0].clone();
    crd.spec.versions[0].storage = false;
    next.name = "v1beta1".into();
    crd.spec.versions.push(next);
    apply_crd_version(plane.admin(), &crd).await?;
    crd.spec.versions.remove(0);
    let too_early = apply_crd_version(plane.admin(), &crd).await.map_err(|error| error.to_string());
    assert!(too_early.as_ref().is_err_and(|error| error.contains("storedVersions")), "{too_early:?}");

    let text = std::fs::read_to_string(repository().join("docs/how-to/kubernetes.md"))?;
    let (_, section) = text.split_once("stops serving the old one:\n\n").context("the section is missing")?;
    let commands: Vec<&str> = section.split("\n\n").next().unwrap_or_default().lines().map(str::trim).collect();
    run_as_administrator(&plane, &commands.join("\n")).await?;
    apply_crd_version(plane.admin(), &crd).await?;
    let repository_of =
        ["get", "pulseingests.v1beta1.pulseboard.dev", "main", "-o", "jsonpath={.spec.image.repository}"];
    assert_eq!(plane.admin().kubectl(&repository_of).await?, "localhost/pulse");
    Ok(())
}
