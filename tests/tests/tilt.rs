//! Checks the Tiltfile with a Starlark interpreter, its objects with a real API server, and kind-config.yaml with the
//! parser of kind.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::process::Output;

use anyhow::Context;
use pulse_tests::cluster::{ControlPlane, packaging_program, program};
use pulse_tests::operator::install_crd;
use pulse_tests::tiltfile::{OVERLAY, Tiltfile, overlay};
use pulse_tests::{binary, repository, run};
use serde_json::{Value, json};
use tokio::process::Command;

const IMAGE: &str = "localhost/pulse-dev";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().map(text)
}

fn is_workload(object: &Value) -> bool {
    ["Deployment", "PulseIngest"].contains(&text(&object["kind"]))
}

#[tokio::test]
async fn tiltfile_refuses_other_contexts_with_a_remedy() -> anyhow::Result<()> {
    let tiltfile = Tiltfile::in_context("production").await?;
    let error = tiltfile.error.as_deref().context("it fails")?;
    assert!(error.contains("kind create cluster --config kind-config.yaml"), "{error}");
    assert!(error.contains("kubectl config use-context kind-pulse"), "{error}");
    assert_eq!(tiltfile.of("k8s_yaml").count() + tiltfile.of("local").count(), 0, "the Tiltfile acts before the check");
    Ok(())
}

/// Evaluates the Tiltfile with Tilt, if it is installed. This needs no cluster.
async fn evaluate_with_tilt() -> anyhow::Result<()> {
    if Command::new("tilt").arg("version").output().await.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    let context = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "kind-pulse",
        "clusters": [{ "name": "kind-pulse", "cluster": { "server": "https://127.0.0.1:1" } }],
        "users": [{ "name": "kind-pulse", "user": {} }],
        "contexts": [{ "name": "kind-pulse", "context": { "cluster": "kind-pulse", "user": "kind-pulse" } }] });
    std::fs::write(&kubeconfig, context.to_string())?;
    let mut tilt = Command::new("tilt");
    tilt.args(["alpha", "tiltfile-result"]).env("KUBECONFIG", &kubeconfig).current_dir(repository());
    run(&mut tilt).await.map(drop)
}

#[tokio::test]
async fn tiltfile_paths_exist_and_no_extension_is_loaded() -> anyhow::Result<()> {
    evaluate_with_tilt().await?;
    let tiltfile = Tiltfile::read().await?;
    let mut paths: Vec<&str> = Vec::new();
    for resource in tiltfile.of("local_resource") {
        paths.extend(texts(&resource["deps"]));
        paths.extend(text(&resource["cmd"]).split(' ').filter(|word| word.starts_with("scripts/")));
    }
    paths.extend(tiltfile.of("docker_build").map(|build| text(&build["dockerfile"])));
    paths.extend(tiltfile.of("kustomize").map(|call| text(&call["pathToDir"])));
    paths.extend(tiltfile.of("k8s_yaml").filter_map(|call| call["yaml"].as_str()));
    assert!(paths.len() > 8, "{paths:?}");
    for path in paths {
        assert!(repository().join(path).exists(), "{path}");
    }
    // The Tiltfile creates the build context, and the synced file is in it.
    let context = text(&tiltfile.of("docker_build").next().context("an image")?["context"]).to_owned();
    assert!(tiltfile.of("local").any(|call| text(&call["command"]) == format!("mkdir -p {context}")));
    let sync = tiltfile.of("sync").next().context("a sync")?;
    assert_eq!((text(&sync["local_path"]), text(&sync["remote_path"])), (".tilt/pulse", "/dev-bin/pulse"));
    assert_eq!(tiltfile.of("fall_back_on").next().context("a fall-back")?["files"], ".tilt/schema");
    let source = std::fs::read_to_string(repository().join("Tiltfile"))?;
    assert!(!source.contains("load(") && !source.contains("ext://"), "an extension would need network access");
    Ok(())
}

#[tokio::test]
async fn tiltfile_builds_the_image_of_every_pod() -> anyhow::Result<()> {
    let (tiltfile, objects) = (Tiltfile::read().await?, overlay().await?);
    let built: Vec<&str> = tiltfile.of("docker_build").map(|build| text(&build["ref"])).collect();
    assert_eq!(built, [IMAGE]);
    let mut images = BTreeSet::new();
    for object in objects.iter().filter(|object| is_workload(object)) {
        let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        images.extend(containers.into_iter().flatten().map(|container| text(&container["image"]).to_owned()));
        if object["kind"] == "PulseIngest" {
            images.insert(text(&object["spec"]["image"]["repository"]).to_owned());
        }
    }
    let ours: Vec<&String> = images.iter().filter(|image| image.starts_with(IMAGE)).collect();
    assert_eq!(ours, [IMAGE, &format!("{IMAGE}:dev")], "in the PulseIngest and in the operator's Deployment");
    assert!(images.iter().all(|image| image.starts_with(IMAGE) || image.starts_with("docker.io/library/")));

    let kind = tiltfile.of("k8s_kind").next().context("k8s_kind is called")?;
    let instance = objects.iter().find(|object| object["kind"] == "PulseIngest").context("a PulseIngest")?;
    assert_eq!((&kind["kind"], &kind["api_version"]), (&instance["kind"], &instance["apiVersion"]));
    let image = json!({ "json_path": "{.spec.image}", "repo_field": "repository", "tag_field": "tag" });
    assert_eq!(kind["image_object"], image);
    let main = tiltfile.of("k8s_resource").find(|resource| resource["workload"] == "main").context("main")?;
    assert_eq!(main["discovery_strategy"], "selectors-only");
    let selected = main["extra_pod_selectors"].as_array().into_iter().flatten();
    let selected: BTreeSet<&str> = selected.map(|labels| text(&labels["app.kubernetes.io/component"])).collect();
    assert_eq!(selected, pulse_crd::names::Role::ALL.map(|role| role.component()).into());
    Ok(())
}

#[tokio::test]
async fn tiltfile_resources_exist_without_dependency_cycles() -> anyhow::Result<()> {
    let (tiltfile, objects) = (Tiltfile::read().await?, overlay().await?);
    let mut resources: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let dependencies = |resource: &Value| texts(&resource["resource_deps"]).map(str::to_owned).collect();
    for resource in tiltfile.of("local_resource") {
        resources.insert(text(&resource["name"]).to_owned(), dependencies(resource));
    }
    let mut workloads: BTreeSet<&str> =
        objects.iter().filter(|object| is_workload(object)).map(|object| text(&object["metadata"]["name"])).collect();
    for resource in tiltfile.of("k8s_resource") {
        let workload = text(&resource["workload"]);
        assert!(workloads.remove(workload), "{workload} is not in the overlay, or used twice");
        let name = if resource["new_name"] == "" { workload } else { text(&resource["new_name"]) };
        resources.insert(name.to_owned(), dependencies(resource));
        assert!(resource["labels"].as_array().is_some_and(|labels| !labels.is_empty()), "{name} has no label");
        for grouped in texts(&resource["objects"]) {
            let (name, kind) = grouped.split_once(':').context("NAME:KIND")?;
            let is_it =
                |object: &&Value| text(&object["kind"]).to_lowercase() == kind && object["metadata"]["name"] == name;
            assert!(objects.iter().any(|object| is_it(&object)), "{grouped}");
        }
    }
    assert_eq!(workloads, BTreeSet::new(), "each workload has a resource");
    // Topological order: without cycles, every resource is reached.
    let mut done: BTreeSet<String> = BTreeSet::new();
    while let Some(next) =
        resources.keys().find(|name| !done.contains(*name) && resources[*name].iter().all(|it| done.contains(it)))
    {
        done.insert(next.clone());
    }
    assert_eq!(done.iter().collect::<Vec<_>>(), resources.keys().collect::<Vec<_>>());
    Ok(())
}

/// Replaces the programs that buttons call with `--help` of the same command, which fails if a flag is unknown.
const PARSE_ONLY: &str = r#"
    kubectl() {
        local ours=()
        while [ $# -gt 0 ] && [ "$1" != -- ]; do ours+=("$1"); shift; done
        "$KUBECTL" "${ours[@]}" --help >/dev/null || return
        [ $# = 0 ] || { [ "$2" = /pulse ] && "$PULSE" "${@:3}" --help >/dev/null; }
    }
    .tilt/pulse() { "$PULSE" "$@" --help >/dev/null; }
"#;

#[tokio::test]
async fn tiltfile_buttons_call_existing_commands() -> anyhow::Result<()> {
    let tiltfile = Tiltfile::read().await?;
    let buttons = tiltfile.of("local_resource").filter(|resource| resource["labels"] == json!(["buttons"]));
    let mut names = Vec::new();
    for button in buttons {
        assert_eq!((&button["trigger_mode"], &button["auto_init"]), (&json!("manual"), &json!(false)));
        let name = text(&button["name"]);
        let parse = async |command: &str| -> anyhow::Result<Output> {
            let mut bash = Command::new("bash");
            bash.args(["-euo", "pipefail", "-c", &format!("{PARSE_ONLY}\n{command}")]);
            bash.env("KUBECTL", program("kubectl").await?).env("PULSE", binary()).env("PULSE_JWT_SECRET", "x");
            Ok(bash.output().await?)
        };
        let output = parse(text(&button["cmd"])).await?;
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let misspelt = text(&button["cmd"]).replacen(" --", " --no-", 1);
        assert!(!parse(&misspelt).await?.status.success(), "{misspelt}: an unknown flag is not detected");
        names.push(name);
    }
    assert_eq!(names, ["seed", "load", "admin-token", "scale-test", "break-redis", "reset-data"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_overlay_is_accepted_by_an_api_server_with_restricted_pods() -> anyhow::Result<()> {
    let plane = ControlPlane::shared().await?;
    install_crd(plane).await?;
    let admin = plane.admin();
    let folder = repository().join(OVERLAY);
    let path = |name: &str| folder.join(name).to_str().map(str::to_owned).context("a path");
    admin.kubectl(&["apply", "--server-side", "-f", &path("namespace.yaml")?]).await?;
    admin.kubectl(&["-n", "pulse-dev", "create", "serviceaccount", "default"]).await?;
    admin.kubectl(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "-k", &path("")?]).await?;
    let folder = tempfile::tempdir()?;
    let mut pods = 0;
    for object in overlay().await?.iter().filter(|object| object["kind"] == "Deployment") {
        let mut pod = object["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = object["metadata"]["name"].clone();
        pod["spec"]["serviceAccountName"] = json!("default");
        let file = folder.path().join("pod.json");
        std::fs::write(&file, pod.to_string())?;
        let file = file.to_str().context("a path")?;
        admin.kubectl(&["-n", "pulse-dev", "create", "--dry-run=server", "-f", file]).await?;
        pods += 1;
    }
    assert_eq!(pods, 3);
    Ok(())
}

#[tokio::test]
async fn kind_config_is_valid_and_maps_the_ports_of_the_overlay() -> anyhow::Result<()> {
    let parser = packaging_program("kind-config").await?;
    let config = repository().join("kind-config.yaml");
    let read = run(Command::new(&parser).arg(&config)).await?;
    let read: Value = serde_json::from_str(&read)?;
    assert_eq!(read["Name"], "pulse", "the context must be the one that the Tiltfile requires");
    let mapped = read["Nodes"][0]["ExtraPortMappings"].as_array().context("ports")?;
    let mapped: BTreeMap<i64, i64> =
        mapped.iter().filter_map(|port| Some((port["ContainerPort"].as_i64()?, port["HostPort"].as_i64()?))).collect();
    let objects = overlay().await?;
    let services = objects.iter().filter(|object| object["spec"]["type"] == "NodePort");
    let node_ports = services.flat_map(|service| service["spec"]["ports"].as_array().into_iter().flatten());
    let node_ports: BTreeMap<i64, i64> =
        node_ports.filter_map(|port| Some((port["nodePort"].as_i64()?, port["port"].as_i64()?))).collect();
    assert_eq!(mapped, node_ports);
    assert_eq!(mapped, [(30055, 5555), (30080, 8000), (30090, 9090)].into());
    let main = Tiltfile::read().await?;
    let links: Vec<&str> = main.of("link").map(|link| text(&link["url"])).collect();
    assert_eq!(links, ["http://localhost:8000/docs", "http://localhost:5555", "http://localhost:9090/metrics"]);
    for port in main.of("port_forward") {
        assert!(!mapped.values().any(|taken| port["local_port"] == *taken), "{port} is mapped by kind");
    }

    // The parser refuses unknown fields, so the configuration has no misspelt field.
    let folder = tempfile::tempdir()?;
    let wrong = folder.path().join("wrong.yaml");
    std::fs::write(&wrong, std::fs::read_to_string(&config)?.replace("hostPort", "hostport"))?;
    assert!(run(Command::new(&parser).arg(&wrong)).await.is_err_and(|error| error.to_string().contains("hostport")));
    Ok(())
}
