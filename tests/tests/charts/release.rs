//! The files of a release, as scripts/release-artifacts makes them for an image that does not exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use pulse_tests::operator::OperatorEnv;
use pulse_tests::{binary, repository, run};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::admission::{dry_run_apply, pod_specs};
use crate::helm::{Helm, INGEST, OPERATOR};
use crate::objects::{objects, objects_in, of_kind, operator_workloads};
use crate::schemas::{SUPPORTED, kubeconform, schemas};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const IMAGE: &str = "registry.example/team/pulse";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const SOURCE: &str = "https://git.example/team/pulse";
const DOWNLOADS: &str = "https://git.example/team/pulse/releases/download/v1";
const MANIFESTS: [&str; 4] = ["crds.yaml", "install.yaml", "install-namespaced.yaml", "quickstart.yaml"];

/// Calls the script for this version and the program under test. `more` are further arguments.
async fn make(output: &Path, more: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(repository().join("scripts/release-artifacts"));
    command.args(["--image", IMAGE, "--digest", DIGEST, "--source-url", SOURCE, "--download-url", DOWNLOADS]);
    command.arg("--output").arg(output).args(more);
    // Built with the workspace. Without it, the script builds it.
    let charts = binary().with_file_name("pulse-charts");
    if charts.exists() {
        command.env("PULSE_CHARTS", charts);
    }
    run(&mut command).await
}

/// The folder with the files, made once.
async fn artifacts() -> anyhow::Result<&'static Path> {
    static MADE: OnceCell<TempDir> = OnceCell::const_new();
    let make = async || {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("program");
        run(Command::new("strip").arg("-o").arg(&program).arg(binary())).await?;
        let programs = ["linux-amd64", "darwin-arm64"].map(|platform| format!("{platform}={}", program.display()));
        let args =
            ["--version", VERSION, "--artifacthub-id", "an-id", "--binary", &programs[0], "--binary", &programs[1]];
        make(&folder.path().join("files"), &args).await?;
        std::fs::remove_file(program)?;
        anyhow::Ok(folder)
    };
    let folder = MADE.get_or_try_init(make).await?.path().join("files");
    Ok(Box::leak(folder.into_boxed_path()))
}

async fn chart(name: &str) -> anyhow::Result<String> {
    let path = artifacts().await?.join(format!("{name}-{VERSION}.tgz"));
    Ok(path.to_str().context("the path is not UTF-8")?.to_owned())
}

async fn template(helm: Helm, name: &str, more: &[&str]) -> anyhow::Result<Vec<Value>> {
    let chart = chart(name).await?;
    objects(&helm.run(&[&["template", "main", &chart, "--kube-version", "1.33.0"], more].concat()).await?)
}

/// The images of the pods of workloads.
fn images(workloads: &[Value]) -> BTreeSet<String> {
    let pods = pod_specs(workloads);
    let containers = pods.iter().flat_map(|(_, pod)| pod["containers"].as_array().into_iter().flatten());
    containers.filter_map(|container| container["image"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn released_charts_name_the_image_by_its_digest() -> anyhow::Result<()> {
    let released = BTreeSet::from([format!("{IMAGE}@{DIGEST}")]);
    for helm in Helm::BOTH {
        let operator = template(helm, OPERATOR, &[]).await?;
        assert_eq!(images(&operator), released, "{helm:?}");
        let all = template(helm, INGEST, &[]).await?;
        let instance = of_kind(&all, "PulseIngest").next().context("there is no PulseIngest")?;
        assert_eq!(instance["spec"]["image"]["tag"], VERSION, "the version that `kubectl get` shows");
        assert_eq!(images(&operator_workloads(instance)?), released, "{helm:?}");
        for object in operator.iter().chain(&all) {
            assert!(!object.to_string().contains("localhost"), "{helm:?}: {object}");
        }

        let tag = ["--set", "image.tag=9.9.9"];
        assert_eq!(images(&template(helm, OPERATOR, &tag).await?), BTreeSet::from([format!("{IMAGE}:9.9.9")]));
        let all = template(helm, INGEST, &tag).await?;
        let instance = of_kind(&all, "PulseIngest").next().context("there is no PulseIngest")?;
        assert_eq!(images(&operator_workloads(instance)?), BTreeSet::from([format!("{IMAGE}:9.9.9")]));
        let mirror = template(helm, OPERATOR, &["--set", "global.imageRegistry=mirror.example"]).await?;
        assert_eq!(images(&mirror), BTreeSet::from([format!("mirror.example/team/pulse@{DIGEST}")]));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn released_manifests_are_admitted() -> anyhow::Result<()> {
    let env = OperatorEnv::start("release").await?;
    let (folder, schemas) = (artifacts().await?, schemas().await?);
    for file in MANIFESTS {
        let path = folder.join(file);
        let text = std::fs::read_to_string(&path)?;
        assert!(!text.contains("localhost"), "{file}");
        let command = text.lines().next().unwrap_or_default();
        assert!(
            command.starts_with("# kubectl apply --server-side ") && command.ends_with(&format!("-f {file}")),
            "{command}"
        );
        let output = dry_run_apply(&env, &objects_in(&path)?).await.with_context(|| file.to_owned())?;
        assert!(output.contains("serverside-applied (server dry run)"), "{file}: {output}");
        for version in SUPPORTED {
            kubeconform(schemas.path(), version, &[&path]).await.with_context(|| format!("{file} {version}"))?;
        }
    }
    let operator = objects_in(&folder.join("install.yaml"))?;
    assert_eq!(images(&operator), BTreeSet::from([format!("{IMAGE}@{DIGEST}")]));
    let quickstart = objects_in(&folder.join("quickstart.yaml"))?;
    let instance = of_kind(&quickstart, "PulseIngest").next().context("there is no PulseIngest")?;
    assert_eq!(images(&operator_workloads(instance)?), BTreeSet::from([format!("{IMAGE}@{DIGEST}")]));
    Ok(())
}

/// The `Chart.yaml` of a packaged chart.
async fn metadata(name: &str) -> anyhow::Result<Value> {
    let show = Helm::Four.run(&["show", "chart", &chart(name).await?]).await?;
    Ok(pulse_crd::yaml::read(&show)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn released_charts_have_the_metadata_of_artifact_hub() -> anyhow::Result<()> {
    let env = OperatorEnv::start("artifact-hub").await?;
    for name in [OPERATOR, INGEST] {
        let chart = metadata(name).await?;
        assert_eq!((&chart["home"], &chart["sources"]), (&json!(SOURCE), &json!([SOURCE])));
        let annotation = |key: &str| {
            let text = chart["annotations"][format!("artifacthub.io/{key}")].as_str();
            anyhow::Ok(pulse_crd::yaml::read::<Value>(text.with_context(|| format!("{name} has no {key}"))?)?)
        };
        assert_eq!(annotation("images")?, json!([{ "name": "pulse", "image": format!("{IMAGE}@{DIGEST}") }]));
        let kinds = ["added", "changed", "deprecated", "removed", "fixed", "security"];
        for change in annotation("changes")?.as_array().context("a list of changes")? {
            assert!(kinds.iter().any(|kind| change["kind"] == *kind) && change["description"].is_string(), "{change}");
        }
        for link in annotation("links")?.as_array().context("a list of links")? {
            assert!(link["url"].as_str().is_some_and(|url| url.starts_with(SOURCE)), "{link}");
        }
        assert_eq!(chart["maintainers"], Value::Null, "no names are invented");
        if name == OPERATOR {
            assert_eq!(annotation("operator")?, true);
            assert_eq!(annotation("crds")?[0]["name"], "pulseingests.pulseboard.dev");
            let levels = ["Basic Install", "Seamless Upgrades", "Full Lifecycle", "Deep Insights", "Auto Pilot"];
            let level = annotation("operatorCapabilities")?;
            assert!(levels.iter().any(|known| level == *known), "{level}");
            let examples = annotation("crdsExamples")?;
            for example in examples.as_array().context("a list of examples")? {
                dry_run_apply(&env, std::slice::from_ref(example)).await?;
                assert_eq!(images(&operator_workloads(example)?), BTreeSet::from([format!("{IMAGE}@{DIGEST}")]));
            }
        }
    }
    let repository = std::fs::read_to_string(artifacts().await?.join("artifacthub-repo.yml"))?;
    assert_eq!(pulse_crd::yaml::read::<Value>(&repository)?, json!({ "repositoryID": "an-id" }));
    Ok(())
}

/// Unpacks an archive and returns the folder.
async fn unpack(archive: &Path) -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir()?;
    run(Command::new("tar").arg("xzf").arg(archive).arg("--directory").arg(folder.path())).await?;
    Ok(folder)
}

#[tokio::test]
async fn released_archives_match_their_checksums_and_run() -> anyhow::Result<()> {
    let folder = artifacts().await?;
    let checked =
        run(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder)).await?;
    let files = std::fs::read_dir(folder)?.count();
    assert_eq!(checked.lines().count(), files - 1, "every other file has a checksum: {checked}");
    for name in ["pulse", "kubectl-pulse"] {
        let unpacked = unpack(&folder.join(format!("{name}-{VERSION}-linux-amd64.tar.gz"))).await?;
        assert!(unpacked.path().join("LICENSE").is_file());
        let printed = run(Command::new(unpacked.path().join(name)).arg("--version")).await?;
        assert!(printed.contains(VERSION), "{printed}");
    }
    Ok(())
}

/// The rules are those of Krew's guide "Writing Krew plugin manifests", and of its naming guide.
#[tokio::test]
async fn krew_manifest_is_complete_and_matches_the_archives() -> anyhow::Result<()> {
    let folder = artifacts().await?;
    let manifest: Value = pulse_crd::yaml::read(&std::fs::read_to_string(folder.join("pulse.yaml"))?)?;
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().into_iter().flat_map(|fields| fields.keys().cloned()).collect()
    };
    let set = |names: &[&str]| names.iter().copied().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(keys(&manifest), set(&["apiVersion", "kind", "metadata", "spec"]));
    assert_eq!(manifest["apiVersion"], "krew.googlecontainertools.github.com/v1alpha2");
    assert_eq!((&manifest["kind"], &manifest["metadata"]["name"]), (&json!("Plugin"), &json!("pulse")));
    let spec = &manifest["spec"];
    assert_eq!(keys(spec), set(&["description", "homepage", "platforms", "shortDescription", "version"]));
    assert_eq!(spec["version"], format!("v{VERSION}"));
    let short = spec["shortDescription"].as_str().unwrap_or_default();
    assert!(!short.is_empty() && short.len() <= 50 && !short.ends_with('.'), "{short}");
    let sums = std::fs::read_to_string(folder.join("SHA256SUMS"))?;
    let platforms = spec["platforms"].as_array().context("a list of platforms")?;
    assert_eq!(platforms.len(), 2);
    for platform in platforms {
        assert_eq!(keys(platform), set(&["bin", "files", "selector", "sha256", "uri"]));
        let labels = &platform["selector"]["matchLabels"];
        let (os, arch) = (labels["os"].as_str().unwrap_or_default(), labels["arch"].as_str().unwrap_or_default());
        let file = format!("kubectl-pulse-{VERSION}-{os}-{arch}.tar.gz");
        assert_eq!(platform["uri"], format!("{DOWNLOADS}/{file}"));
        let sum = platform["sha256"].as_str().unwrap_or_default();
        assert!(sums.lines().any(|line| line == format!("{sum}  {file}")), "{file}: {sums}");
        let unpacked = unpack(&folder.join(file)).await?;
        for from in platform["files"].as_array().into_iter().flatten().filter_map(|file| file["from"].as_str()) {
            assert!(unpacked.path().join(from).is_file(), "{from}");
        }
        assert_eq!(platform["bin"], "kubectl-pulse", "Krew runs it as `kubectl pulse`");
    }
    Ok(())
}

#[tokio::test]
async fn release_of_another_version_or_without_a_digest_is_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let output: PathBuf = folder.path().join("files");
    let program = format!("linux-amd64={}", binary().display());
    let refusal =
        async |args: &[&str]| make(&output, args).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
    let other = refusal(&["--version", "99.0.0", "--binary", &program]).await;
    assert!(other.contains(&format!("Cargo.toml has version {VERSION}, not 99.0.0")), "{other}");
    let tag = refusal(&["--version", VERSION, "--binary", &program, "--digest", "latest"]).await;
    assert!(tag.contains("latest is not sha256: and 64 hex digits"), "{tag}");
    let missing = refusal(&["--version", VERSION, "--binary", "linux-amd64=/nothing"]).await;
    assert!(missing.contains("/nothing does not exist"), "{missing}");
    Ok(())
}
