//! Helm, in both majors that people have.

use std::path::Path;

use anyhow::Context;
use pulse_tests::cluster::packaging_program;
use pulse_tests::repository;
use tokio::process::Command;

/// The charts, in `charts/`.
pub(crate) const OPERATOR: &str = "pulse-operator";
pub(crate) const INGEST: &str = "pulse-ingest";

/// A major of Helm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Helm {
    Three,
    Four,
}

impl Helm {
    pub(crate) const BOTH: [Self; 2] = [Self::Three, Self::Four];

    /// Runs it to its end, with the cluster of `kubeconfig`; returns what it printed as its result.
    ///
    /// # Errors
    /// If it fails: with what it said.
    pub(crate) async fn at(self, kubeconfig: &Path, args: &[&str]) -> anyhow::Result<String> {
        let name = match self {
            Self::Three => "helm3",
            Self::Four => "helm4",
        };
        let mut command = Command::new(packaging_program(name).await?);
        // Not what somebody configured here.
        let home = repository().join(".cache/helm");
        command.env("XDG_CACHE_HOME", &home).env("XDG_CONFIG_HOME", &home).env("XDG_DATA_HOME", &home);
        // The name under which it owns fields.
        command.arg0("helm").env("KUBECONFIG", kubeconfig).args(args).current_dir(repository()).kill_on_drop(true);
        let output = command.output().await.with_context(|| format!("cannot start {name}"))?;
        let (printed, said) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        anyhow::ensure!(output.status.success(), "{name} {}: {}\n{said}{printed}", args.join(" "), output.status);
        Ok(printed)
    }

    /// The same, without a cluster.
    pub(crate) async fn run(self, args: &[&str]) -> anyhow::Result<String> {
        self.at(Path::new("/dev/null"), args).await
    }

    /// What it makes of a chart, for the oldest Kubernetes that we support.
    pub(crate) async fn template(self, chart: &str, more: &[&str]) -> anyhow::Result<String> {
        let chart = format!("charts/{chart}");
        self.run(&[&["template", "main", &chart, "--namespace", "shop", "--kube-version", "1.33.0"], more].concat())
            .await
    }

    /// Why it refuses to.
    pub(crate) async fn refusal(self, chart: &str, more: &[&str]) -> anyhow::Result<String> {
        match self.template(chart, more).await {
            Ok(_) => anyhow::bail!("{self:?} renders {chart} with {more:?}"),
            Err(error) => Ok(error.to_string()),
        }
    }
}
