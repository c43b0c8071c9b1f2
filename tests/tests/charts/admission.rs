//! What a real API server says to what the charts render and to `manifests/`.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams};
use pulse_operator::crd::PulseIngest;
use pulse_operator::desired::{Inputs, JobKind, JobRequest, resources};
use pulse_tests::operator::OperatorEnv;
use pulse_tests::repository;
use serde_json::{Value, json};

use crate::helm::{Helm, INGEST, OPERATOR};
use crate::objects::{Case, manifests, objects, objects_in, of_kind};

/// What it is called, and the pod's spec, of every workload.
fn pods(objects: &[Value]) -> Vec<(String, Value)> {
    let workloads = objects.iter().filter(|object| !object["spec"]["template"]["spec"].is_null());
    let pod = |object: &Value| {
        let mut spec = object["spec"]["template"]["spec"].clone();
        // A StatefulSet puts its claims beside the volumes.
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

/// The workloads that the operator would make of an object.
fn of_operator(ingest: &Value) -> anyhow::Result<Vec<Value>> {
    let mut ingest: PulseIngest = serde_json::from_value(ingest.clone())?;
    ingest.metadata.namespace = Some("shop".into());
    ingest.metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
    let revision = pulse_operator::revision::desired(&ingest.spec);
    let job = JobRequest {
        name: "main-migrate-0".into(),
        kind: JobKind::Migrate,
        revision: revision.clone(),
        args: vec!["migrate".into()],
    };
    let made = resources(
        &ingest,
        &Inputs { revision: Some(&revision), secrets: BTreeMap::new(), job: Some(&job), dev_reload: None },
    );
    let mut objects = vec![serde_json::to_value(made.migration.context("a Job")?)?];
    for (_, deployment) in &made.deployments {
        objects.push(serde_json::to_value(deployment)?);
    }
    Ok(objects)
}

/// Whether its kind is defined by another operator.
fn is_of_others(object: &Value) -> bool {
    object["kind"] == "ServiceMonitor" || object["apiVersion"] == "postgresql.cnpg.io/v1"
}

/// Whether a namespace that enforces `restricted` would admit it.
async fn admit(bench: &OperatorEnv, mut spec: Value) -> anyhow::Result<()> {
    // These would have to exist.
    for named in ["serviceAccount", "serviceAccountName", "priorityClassName"] {
        spec.as_object_mut().context("a spec")?.remove(named);
    }
    let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "it" }, "spec": spec }))?;
    bench.all::<Pod>().create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_is_restricted_those_of_the_operator_too() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("restricted").await?;
    let label = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
    let namespaces: Api<Namespace> = Api::all(bench.client.clone());
    namespaces.patch(&bench.namespace, &PatchParams::default(), &Patch::Merge(&label)).await?;
    let refused = admit(&bench, json!({ "containers": [{ "name": "it", "image": "it" }] })).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("violates PodSecurity")), "it is enforced");

    let mut all = Vec::new();
    for case in Case::all()? {
        all.extend(case.objects().await?);
    }
    for manifest in manifests()? {
        all.extend(objects_in(&manifest)?);
    }
    let instances: Vec<Value> = of_kind(&all, "PulseIngest").cloned().collect();
    for ingest in &instances {
        let made = of_operator(ingest)?;
        assert_eq!(made.len(), 4, "three roles and a migration");
        all.extend(made);
    }
    let pods = pods(&all);
    assert!(pods.len() > 4 * instances.len(), "pods of the charts too");
    for (name, spec) in pods {
        admit(&bench, spec).await.with_context(|| name)?;
    }
    Ok(())
}

/// Has the API server say what it would do with objects.
async fn would_apply(bench: &OperatorEnv, objects: &[Value]) -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("objects.yaml");
    // JSON is YAML. Of a List, kubectl would check the fields itself.
    std::fs::write(&path, objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n"))?;
    let args = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f"];
    let file = path.to_str().context("a path")?;
    bench.plane.admin().kubectl(&[&["-n", &bench.namespace], &args[..], &[file]].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_rendered_is_accepted_by_a_strict_api_server() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("rendered").await?;
    for case in Case::all()? {
        let mut rendered = case.objects().await?;
        rendered.retain(|object| !is_of_others(object));
        would_apply(&bench, &rendered).await.with_context(|| format!("{case:?}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_manifest_is_accepted_in_any_namespace() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("manifests").await?;
    for manifest in manifests()? {
        let mut objects = objects_in(&manifest)?;
        objects.retain(|object| !is_of_others(object));
        for object in &objects {
            assert_eq!(object["metadata"]["namespace"], Value::Null, "{}: {}", manifest.display(), object["kind"]);
        }
        would_apply(&bench, &objects).await.with_context(|| manifest.display().to_string())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_line_of_what_is_generated_applies_it() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("first-line").await?;
    for namespace in ["pulse-system", "pulse-dev"] {
        bench.plane.admin().kubectl(&["create", "namespace", namespace]).await?;
    }
    let generated = ["crds.yaml", "install.yaml", "install-namespaced.yaml", "quickstart/quickstart.yaml"];
    for file in generated.into_iter().chain(["kustomization.yaml"]) {
        let text = std::fs::read_to_string(repository().join("manifests").join(file))?;
        let command = text.lines().next().and_then(|line| line.strip_prefix("# kubectl ")).context(file)?;
        // Paths are from the root of the repository.
        let words = command.split(' ').map(|word| match word.strip_prefix("manifests") {
            Some(rest) => format!("{}/manifests{rest}", repository().display()),
            None => word.to_owned(),
        });
        let words: Vec<String> = words.collect();
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        args.extend(["--force-conflicts", "--dry-run=server", "--validate=strict"]);
        let said = bench.plane.admin().kubectl(&args).await.with_context(|| file.to_owned())?;
        assert!(said.contains("serverside-applied (server dry run)"), "{file}: {said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_field_of_an_object_is_refused_with_its_name() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("misspelt").await?;
    // What `spec` passes on, the chart does not know.
    for (path, value) in [("spec.workers.replcas", "3"), ("spec.wrkers", "3")] {
        let text = Helm::Four.template(INGEST, &["--set", &format!("{path}={value}")]).await?;
        let refusal = would_apply(&bench, &objects(&text)?).await.err().with_context(|| path.to_owned())?.to_string();
        assert!(refusal.contains(path), "{refusal}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_object_that_an_install_prints_can_be_pasted() -> anyhow::Result<()> {
    let bench = OperatorEnv::start("notes").await?;
    let (kubeconfig, chart) = (bench.plane.admin().kubeconfig(), format!("charts/{OPERATOR}"));
    for helm in Helm::BOTH {
        // The definition is there, and not Helm's.
        let install = ["install", "main", &chart, "--dry-run=client", "--set", "crds.enabled=false"];
        let printed = helm.at(kubeconfig, &[&install[..], &["--namespace", &bench.namespace]].concat()).await?;
        // As a shell reads a here-document.
        let (_, rest) = printed.split_once("\nkubectl apply -f - <<END\n").context("a command to paste")?;
        let (object, _) = rest.split_once("\nEND\n").context("an end that a shell finds")?;
        let said = would_apply(&bench, &objects(object)?).await?;
        assert!(said.contains("pulseingest.pulseboard.dev/main"), "{helm:?}: {said}");
    }
    Ok(())
}
