//! The Tiltfile, by Starlark's own engine; what it applies, by a real API server; kind-config.yaml, by kind's own parser.

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
async fn a_foreign_context_is_refused_with_the_commands_that_help() -> anyhow::Result<()> {
    let tiltfile = Tiltfile::in_context("production").await?;
    let error = tiltfile.error.as_deref().context("it fails")?;
    assert!(error.contains("kind create cluster --config kind-config.yaml"), "{error}");
    assert!(error.contains("kubectl config use-context kind-pulse"), "{error}");
    assert_eq!(tiltfile.of("k8s_yaml").count() + tiltfile.of("local").count(), 0, "nothing was done before");
    Ok(())
}

/// Asks Tilt itself, where it is installed: that needs no cluster.
async fn ask_tilt() -> anyhow::Result<()> {
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
async fn every_path_exists_and_no_extension_is_loaded() -> anyhow::Result<()> {
    ask_tilt().await?;
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
    // The build's folder is made, and what is synced is in it.
    let context = text(&tiltfile.of("docker_build").next().context("an image")?["context"]).to_owned();
    assert!(tiltfile.of("local").any(|call| text(&call["command"]) == format!("mkdir -p {context}")));
    let sync = tiltfile.of("sync").next().context("a sync")?;
    assert_eq!((text(&sync["local_path"]), text(&sync["remote_path"])), (".tilt/pulse", "/dev-bin/pulse"));
    assert_eq!(tiltfile.of("fall_back_on").next().context("a fall-back")?["files"], ".tilt/schema");
    let source = std::fs::read_to_string(repository().join("Tiltfile"))?;
    assert!(!source.contains("load(") && !source.contains("ext://"), "an extension needs a network");
    Ok(())
}

#[tokio::test]
async fn every_image_is_used_and_builds_reach_every_pod() -> anyhow::Result<()> {
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
    assert_eq!(ours, [IMAGE, &format!("{IMAGE}:dev")], "in the object, and in the operator's Deployment");
    assert!(images.iter().all(|image| image.starts_with(IMAGE) || image.starts_with("docker.io/library/")));

    let kind = tiltfile.of("k8s_kind").next().context("the kind is known")?;
    let ingest = objects.iter().find(|object| object["kind"] == "PulseIngest").context("an ingest")?;
    assert_eq!((&kind["kind"], &kind["api_version"]), (&ingest["kind"], &ingest["apiVersion"]));
    let image = json!({ "json_path": "{.spec.image}", "repo_field": "repository", "tag_field": "tag" });
    assert_eq!(kind["image_object"], image);
    let main = tiltfile.of("k8s_resource").find(|resource| resource["workload"] == "main").context("main")?;
    assert_eq!(main["discovery_strategy"], "selectors-only");
    let selected = main["extra_pod_selectors"].as_array().into_iter().flatten();
    let selected: BTreeSet<&str> = selected.map(|labels| text(&labels["app.kubernetes.io/component"])).collect();
    assert_eq!(selected, pulse_operator::names::Role::ALL.map(|role| role.component()).into());
    Ok(())
}

#[tokio::test]
async fn resources_are_known_and_none_waits_for_itself() -> anyhow::Result<()> {
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
        assert!(workloads.remove(workload), "{workload} is in the overlay, once");
        let name = if resource["new_name"] == "" { workload } else { text(&resource["new_name"]) };
        resources.insert(name.to_owned(), dependencies(resource));
        assert!(resource["labels"].as_array().is_some_and(|labels| !labels.is_empty()), "{name} has a label");
        for grouped in texts(&resource["objects"]) {
            let (name, kind) = grouped.split_once(':').context("NAME:KIND")?;
            let is_it =
                |object: &&Value| text(&object["kind"]).to_lowercase() == kind && object["metadata"]["name"] == name;
            assert!(objects.iter().any(|object| is_it(&object)), "{grouped}");
        }
    }
    assert_eq!(workloads, BTreeSet::new(), "each workload has a place");
    // What waits only for what is done is done.
    let mut done: BTreeSet<String> = BTreeSet::new();
    while let Some(next) =
        resources.keys().find(|name| !done.contains(*name) && resources[*name].iter().all(|it| done.contains(it)))
    {
        done.insert(next.clone());
    }
    assert_eq!(done.iter().collect::<Vec<_>>(), resources.keys().collect::<Vec<_>>());
    Ok(())
}

/// The programs that buttons call, but that they only say how they would be called: a flag that they do not know is an
/// error before that.
const ONLY_PARSE: &str = r#"
    kubectl() {
        local ours=()
        while [ $# -gt 0 ] && [ "$1" != -- ]; do ours+=("$1"); shift; done
        "$KUBECTL" "${ours[@]}" --help >/dev/null || return
        [ $# = 0 ] || { [ "$2" = /pulse ] && "$PULSE" "${@:3}" --help >/dev/null; }
    }
    .tilt/pulse() { "$PULSE" "$@" --help >/dev/null; }
"#;

#[tokio::test]
async fn every_button_calls_what_there_is() -> anyhow::Result<()> {
    let tiltfile = Tiltfile::read().await?;
    let buttons = tiltfile.of("local_resource").filter(|resource| resource["labels"] == json!(["buttons"]));
    let mut names = Vec::new();
    for button in buttons {
        assert_eq!((&button["trigger_mode"], &button["auto_init"]), (&json!("manual"), &json!(false)));
        let name = text(&button["name"]);
        let parse = async |command: &str| -> anyhow::Result<Output> {
            let mut bash = Command::new("bash");
            bash.args(["-euo", "pipefail", "-c", &format!("{ONLY_PARSE}\n{command}")]);
            bash.env("KUBECTL", program("kubectl").await?).env("PULSE", binary()).env("PULSE_JWT_SECRET", "x");
            Ok(bash.output().await?)
        };
        let output = parse(text(&button["cmd"])).await?;
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let misspelt = text(&button["cmd"]).replacen(" --", " --no-", 1);
        assert!(!parse(&misspelt).await?.status.success(), "{misspelt}: a wrong flag is seen");
        names.push(name);
    }
    assert_eq!(names, ["seed", "load", "scale-test", "break-redis", "reset-data"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overlay_is_accepted_by_an_api_server_and_its_pods_are_restricted() -> anyhow::Result<()> {
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
async fn kind_reads_its_configuration_and_maps_the_ports_of_the_overlay() -> anyhow::Result<()> {
    let parser = packaging_program("kind-config").await?;
    let config = repository().join("kind-config.yaml");
    let read = run(Command::new(&parser).arg(&config)).await?;
    let read: Value = serde_json::from_str(&read)?;
    assert_eq!(read["Name"], "pulse", "its context is the one that the Tiltfile wants");
    let mapped = read["Nodes"][0]["ExtraPortMappings"].as_array().context("ports")?;
    let mapped: BTreeMap<i64, i64> =
        mapped.iter().filter_map(|port| Some((port["ContainerPort"].as_i64()?, port["HostPort"].as_i64()?))).collect();
    let objects = overlay().await?;
    let api = objects.iter().find(|object| object["spec"]["type"] == "NodePort").context("a Service")?;
    let offered = api["spec"]["ports"].as_array().context("ports")?;
    let offered: BTreeMap<i64, i64> =
        offered.iter().filter_map(|port| Some((port["nodePort"].as_i64()?, port["port"].as_i64()?))).collect();
    assert_eq!(mapped, offered);
    assert_eq!(mapped, [(30080, 8000), (30090, 9090)].into());
    let main = Tiltfile::read().await?;
    let links: Vec<&str> = main.of("link").map(|link| text(&link["url"])).collect();
    assert_eq!(links, ["http://localhost:8000/docs", "http://localhost:9090/metrics"]);
    for port in main.of("port_forward") {
        assert!(!mapped.values().any(|taken| port["local_port"] == *taken), "{port} is taken by kind");
    }

    // The parser is strict: so a misspelt field would have been refused.
    let folder = tempfile::tempdir()?;
    let wrong = folder.path().join("wrong.yaml");
    std::fs::write(&wrong, std::fs::read_to_string(&config)?.replace("hostPort", "hostport"))?;
    assert!(run(Command::new(&parser).arg(&wrong)).await.is_err_and(|error| error.to_string().contains("hostport")));
    Ok(())
}
