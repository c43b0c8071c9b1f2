//! The rendered charts and `manifests/` against a real API server.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use pulse_tests::operator::{OperatorEnv, TIMEOUT};
use pulse_tests::{eventually, repository};
use serde_json::{Value, json};

use crate::foreign_crds::{self, is_unknown};
use crate::helm::{Helm, INGEST, OPERATOR};
use crate::objects::{Case, manifests, objects, objects_in, of_kind, operator_workloads};

/// The name and the pod spec of every workload.
pub(crate) fn pod_specs(objects: &[Value]) -> Vec<(String, Value)> {
    let workloads = objects.iter().filter(|object| !object["spec"]["template"]["spec"].is_null());
    let pod = |object: &Value| {
        let mut spec = object["spec"]["template"]["spec"].clone();
        // The claims of a StatefulSet are not in the volumes of its pod template.
        for claim in object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
            let name = &claim["metadata"]["name"];
            let volume = json!({ "name": name, "persistentVolumeClaim": { "claimName": name } });
            match spec["volumes"].as_array_mut() {
                Some(volumes) => volumes.push(volume),
                None => spec["volumes"] = json!([volume]),
            }
        }
        (object["metadata"]["name"].to_string(), spec)
    };
    workloads.map(pod).collect()
}

/// Creates a pod with a server-side dry run.
async fn dry_run_pod(env: &OperatorEnv, mut spec: Value) -> anyhow::Result<()> {
    // Admission requires these objects to exist.
    for named in ["serviceAccount", "serviceAccountName", "priorityClassName"] {
        spec.as_object_mut().context("the spec is not an object")?.remove(named);
    }
    let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "it" }, "spec": spec }))?;
    env.api::<Pod>().create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_all_meet_the_restricted_standard() -> anyhow::Result<()> {
    let env = OperatorEnv::start("restricted").await?;
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    namespaces.patch(&env.namespace, &PatchParams::default(), &Patch::Merge(&label)).await?;
    // Admission sees the label a moment after the API server has stored it.
    let enforces = async || {
        let refused = dry_run_pod(&env, json!({ "containers": [{ "name": "it", "image": "it" }] })).await;
        Ok(refused.is_err_and(|error| error.to_string().contains("violates PodSecurity")))
    };
    eventually("the namespace enforces `restricted`", TIMEOUT, enforces).await?;

    let mut all = Vec::new();
    for case in Case::all()? {
        all.extend(case.objects().await?);
    }
    for manifest in manifests()? {
        all.extend(objects_in(&manifest)?);
    }
    let instances: Vec<Value> = of_kind(&all, "PulseIngest").cloned().collect();
    for instance in &instances {
        let workloads = operator_workloads(instance)?;
        let has_console = instance["spec"]["console"]["enabled"] == true;
        assert_eq!(workloads.len(), 4 + usize::from(has_console), "a Deployment of each role, and a migration Job");
        all.extend(workloads);
    }
    let pods = pod_specs(&all);
    assert!(pods.len() > 4 * instances.len(), "the charts have pods too");
    for (name, spec) in pods {
        dry_run_pod(&env, spec).await.with_context(|| name)?;
    }
    Ok(())
}

/// Applies objects with a server-side dry run, those without a namespace in the test's; returns kubectl's output.
pub(crate) async fn dry_run_apply(env: &OperatorEnv, objects: &[Value]) -> anyhow::Result<String> {
    let mut by_namespace: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for object in objects {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&env.namespace);
        by_namespace.entry(namespace).or_default().push(object);
    }
    let mut output = String::new();
    for (namespace, objects) in by_namespace {
        output.push_str(&dry_run_apply_in(env, namespace, &objects).await?);
    }
    Ok(output)
}

async fn dry_run_apply_in(env: &OperatorEnv, namespace: &str, objects: &[&Value]) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("objects.yaml");
    // JSON is YAML. Not a List, because kubectl would validate its fields on the client.
    std::fs::write(&path, objects.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n---\n"))?;
    let args = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f"];
    let file = path.to_str().context("the path is not UTF-8")?;
    env.plane.admin().kubectl(&[&["-n", namespace], &args[..], &[file]].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rendered_objects_pass_strict_api_server_validation() -> anyhow::Result<()> {
    let env = OperatorEnv::start("rendered").await?;
    foreign_crds::install(env.plane.admin()).await?;
    for case in Case::all()? {
        dry_run_apply(&env, &case.objects().await?).await.with_context(|| format!("{case:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_apply_in_any_namespace() -> anyhow::Result<()> {
    let env = OperatorEnv::start("manifests").await?;
    for manifest in manifests()? {
        let mut objects = objects_in(&manifest)?;
        objects.retain(|object| !is_unknown(object));
        for object in &objects {
            assert_eq!(object["metadata"]["namespace"], Value::Null, "{}: {}", manifest.display(), object["kind"]);
        }
        dry_run_apply(&env, &objects).await.with_context(|| manifest.display().to_string())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_manifests_apply_with_the_command_in_their_first_line() -> anyhow::Result<()> {
    let env = OperatorEnv::start("first-line").await?;
    for namespace in ["pulse-system", "pulse-dev"] {
        env.plane.admin().kubectl(&["create", "namespace", namespace]).await?;
    }
    let generated = ["crds.yaml", "install.yaml", "install-namespaced.yaml", "quickstart/quickstart.yaml"];
    for file in generated.into_iter().chain(["kustomization.yaml"]) {
        let text = std::fs::read_to_string(repository().join("manifests").join(file))?;
        let command = text.lines().next().and_then(|line| line.strip_prefix("# kubectl ")).context(file)?;
        // The paths in the files are relative to the root of the repository.
        let words = command.split(' ').map(|word| match word.strip_prefix("manifests") {
            Some(rest) => format!("{}/manifests{rest}", repository().display()),
            None => word.to_owned(),
        });
        let words: Vec<String> = words.collect();
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        args.extend(["--force-conflicts", "--dry-run=server", "--validate=strict"]);
        let output = env.plane.admin().kubectl(&args).await.with_context(|| file.to_owned())?;
        assert!(output.contains("serverside-applied (server dry run)"), "{file}: {output}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn misspelt_spec_field_is_refused_by_name() -> anyhow::Result<()> {
    let env = OperatorEnv::start("misspelt").await?;
    // The chart passes `spec` on without a schema.
    for (path, value) in [("spec.workers.replcas", "3"), ("spec.wrkers", "3")] {
        let text = Helm::Four.template(INGEST, &["--set", &format!("{path}={value}")]).await?;
        let refusal = dry_run_apply(&env, &objects(&text)?).await.err().with_context(|| path.to_owned())?.to_string();
        assert!(refusal.contains(path), "{refusal}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn install_notes_print_an_object_that_applies() -> anyhow::Result<()> {
    let env = OperatorEnv::start("notes").await?;
    let (kubeconfig, chart) = (env.plane.admin().kubeconfig(), format!("charts/{OPERATOR}"));
    for helm in Helm::BOTH {
        // The CRD exists already and does not belong to Helm.
        let install = ["install", "main", &chart, "--dry-run=client", "--set", "crds.enabled=false"];
        let notes = helm.run_in_cluster(kubeconfig, &[&install[..], &["--namespace", &env.namespace]].concat()).await?;
        // Parsed as a shell reads a here-document.
        let (_, rest) = notes.split_once("\nkubectl apply -f - <<END\n").context("the notes have no command")?;
        let (object, _) = rest.split_once("\nEND\n").context("the here-document does not end")?;
        let output = dry_run_apply(&env, &objects(object)?).await?;
        assert!(output.contains("pulseingest.pulseboard.dev/main"), "{helm:?}: {output}");
    }
    Ok(())
}
