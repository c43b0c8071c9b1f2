//! GitHub workflows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use pulse_tests::cluster::packaging_program;
use pulse_tests::{python_tool, repository, run};
use serde_json::{Value, json};
use tokio::process::Command;

#[tokio::test]
async fn github_workflows_pass_actionlint() -> anyhow::Result<()> {
    let folder = repository().join(".github/workflows");
    let files: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    assert!(!files.is_empty(), "{} is empty", folder.display());
    // actionlint checks the shell scripts in them as well, if shellcheck is installed.
    run(Command::new(packaging_program("actionlint").await?).args(files)).await?;
    Ok(())
}

/// Known ways to attack a workflow: injected expressions, actions that are not pinned, more permissions than needed.
#[tokio::test]
async fn github_workflows_pass_zizmor() -> anyhow::Result<()> {
    let tool = python_tool("zizmor", "1.32.0").await?;
    let args = ["--offline", "--no-progress", "--persona=auditor"];
    run(Command::new(tool).args(args).arg(repository().join(".github/workflows"))).await?;
    Ok(())
}

/// What a release is built from and what it signs: only `attest` may sign and only `release` may write, and neither runs code
/// of the repository.
#[test]
fn release_resolves_base_images_and_attests_what_it_publishes() -> anyhow::Result<()> {
    let text = std::fs::read_to_string(repository().join(".github/workflows/release.yaml"))?;
    let workflow: Value = pulse_crd::yaml::read(&text)?;
    assert_eq!(workflow["permissions"], json!({}));
    let jobs: BTreeMap<String, Value> = serde_json::from_value(workflow["jobs"].clone())?;
    for (name, job) in &jobs {
        let (permissions, runs_code) = match name.as_str() {
            "attest" => (json!({ "attestations": "write", "id-token": "write" }), false),
            "release" => (json!({ "contents": "write" }), false),
            _ => (json!({ "contents": "read" }), true),
        };
        assert_eq!(job["permissions"], permissions, "{name}");
        let steps = job["steps"].as_array().context("a list of steps")?;
        let uses =
            |action: &str| steps.iter().any(|step| step["uses"].as_str().is_some_and(|uses| uses.contains(action)));
        assert_eq!((uses("actions/checkout@"), uses("actions/attest@")), (runs_code, name == "attest"), "{name}");
        let has_secrets = job.to_string().contains("secrets.");
        assert_eq!(has_secrets, job["environment"] == "release", "{name}: secrets only behind the environment's rules");
    }

    let steps = jobs["attest"]["steps"].as_array().into_iter().flatten();
    let mut subjects: Vec<&str> = steps
        .filter_map(|step| step["with"]["subject-digest"].as_str().or(step["with"]["subject-path"].as_str()))
        .collect();
    subjects.sort_unstable();
    let digest = |name: &str| format!("${{{{ needs.publish.outputs.{name} }}}}");
    assert_eq!(subjects, [digest("amd64"), digest("arm64"), digest("digest"), "artifacts/*".to_owned()]);

    // Each image that is not from here is an argument that the workflow sets to a digest.
    let dockerfile = std::fs::read_to_string(repository().join("Dockerfile"))?;
    let mut stages = vec!["scratch", "$RUST_IMAGE"];
    for line in dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")) {
        let (image, stage) = line.split_once(" AS ").unwrap_or((line, ""));
        assert!(stages.contains(&image), "FROM {image}: resolve its digest in release.yaml as well");
        stages.push(stage);
    }
    assert_eq!(jobs["image"]["steps"][2]["env"]["RUST_IMAGE"], "${{ needs.version.outputs.rust-image }}");
    Ok(())
}

/// `dev-reload` would run any program that is copied into a pod, and `dev-servers` starts servers.
#[test]
fn image_and_archives_are_built_without_the_features_for_development() -> anyhow::Result<()> {
    for file in ["Dockerfile", "scripts/image", "scripts/release-artifacts", ".github/workflows/release.yaml"] {
        let text = std::fs::read_to_string(repository().join(file))?;
        let flags: Vec<&str> =
            text.split("--features ").skip(1).filter_map(|rest| rest.split(['"', ' ', '\n']).next()).collect();
        assert!(!flags.is_empty() && flags.len() == text.matches("--no-default-features").count(), "{file}: {flags:?}");
        for feature in flags.iter().flat_map(|flags| flags.split(',')) {
            assert!(["archive", "kubernetes", "jemalloc"].contains(&feature), "{file}: {feature}");
        }
    }
    Ok(())
}
