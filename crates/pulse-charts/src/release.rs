//! What the charts of a release have in addition: the image by digest, and the metadata of Artifact Hub.

use std::path::Path;

use anyhow::{Context, ensure};
use pulse_crd::yaml;
use serde_json::{Map, Value, json};

use crate::changelog;

/// Annotation of a chart with the digest of its image. A digest among the values would override a tag that a user sets.
const DIGEST: &str = "pulseboard.dev/image-digest";
/// Samples that Artifact Hub shows.
const SAMPLES: [&str; 2] = ["minimal", "production"];

/// The release that the charts are generated for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// Image without a tag, with its registry.
    pub(crate) image: String,
    digest: String,
    /// Address of the repository.
    source_url: String,
}

impl Release {
    pub(crate) fn new(image: String, digest: String, source_url: String) -> anyhow::Result<Self> {
        let path = image.split_once('/').map_or("", |(_, path)| path);
        ensure!(
            !path.is_empty() && !path.contains([':', '@']),
            "{image} is not REGISTRY/PATH: the digest identifies the image, without a tag"
        );
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        ensure!(
            hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
            "{digest} is not sha256: and 64 hex digits"
        );
        ensure!(source_url.starts_with("https://"), "{source_url} is not the https address of the repository");
        Ok(Self { image, digest, source_url: source_url.trim_end_matches('/').to_owned() })
    }

    /// The `Chart.yaml` of a chart of this release, from that of the repository. `root` has the changelog and the samples.
    pub(crate) fn chart(&self, chart: &str, root: &Path) -> anyhow::Result<String> {
        let mut chart: Map<String, Value> = yaml::read(chart)?;
        let version = chart.get("version").and_then(Value::as_str).context("the chart has no version")?.to_owned();
        chart.insert("home".into(), json!(self.source_url));
        chart.insert("sources".into(), json!([self.source_url]));
        let annotations =
            chart.get_mut("annotations").and_then(Value::as_object_mut).context("there are no annotations")?;
        let mut set = |name: &str, value: String| annotations.insert(name.into(), value.into());
        set(DIGEST, self.digest.clone());
        set("artifacthub.io/prerelease", version.contains('-').to_string());
        let image = format!("{}@{}", self.image, self.digest);
        set("artifacthub.io/images", yaml::print(&json!([{ "name": "pulse", "image": image }]))?);
        let page = |name: &str, file: &str| json!({ "name": name, "url": format!("{}/blob/v{version}/{file}", self.source_url) });
        let links = json!([page("Manual", "docs/README.md"), page("Changelog", "CHANGELOG.md")]);
        set("artifacthub.io/links", yaml::print(&links)?);
        let changelog = std::fs::read_to_string(root.join("CHANGELOG.md")).context("CHANGELOG.md cannot be read")?;
        set("artifacthub.io/changes", yaml::print(&changelog::changes(&changelog, &version)?)?);
        if annotations.contains_key("artifacthub.io/crds") {
            let examples: Vec<Value> =
                SAMPLES.iter().map(|name| self.sample(root, name, &version)).collect::<Result<_, _>>()?;
            annotations.insert("artifacthub.io/crdsExamples".into(), yaml::print(&examples)?.into());
        }
        Ok(yaml::print(&chart)?)
    }

    /// A sample with the image of the release.
    fn sample(&self, root: &Path, name: &str, version: &str) -> anyhow::Result<Value> {
        let path = root.join(format!("manifests/samples/{name}.yaml"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let mut object: Value = yaml::read(&text)?;
        object["spec"]["image"] = json!({ "repository": self.image, "tag": version, "digest": self.digest });
        Ok(object)
    }
}
