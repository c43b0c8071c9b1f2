//! Helm 3 and Helm 4.

use std::path::Path;

use anyhow::Context;
use pulse_tests::cluster::packaging_program;
use pulse_tests::repository;
use tokio::process::Command;

/// The charts, in `charts/`.
pub(crate) const OPERATOR: &str = "pulse-operator";
pub(crate) const INGEST: &str = "pulse-ingest";

/// A major version of Helm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Helm {
    Three,
    Four,
}

impl Helm {
    pub(crate) const BOTH: [Self; 2] = [Self::Three, Self::Four];

    /// Runs Helm with the cluster of `kubeconfig`; returns its standard output.
    ///
    /// # Errors
    /// If it fails; the error contains its output.
    pub(crate) async fn run_in_cluster(self, kubeconfig: &Path, args: &[&str]) -> anyhow::Result<String> {
        let name = match self {
            Self::Three => "helm3",
            Self::Four => "helm4",
        };
        let mut command = Command::new(packaging_program(name).await?);
        // Not the configuration of the user who runs the tests.
        let home = repository().join(".cache/helm");
        command.env("XDG_CACHE_HOME", &home).env("XDG_CONFIG_HOME", &home).env("XDG_DATA_HOME", &home);
        // Helm uses its program name as the field manager.
        command.arg0("helm").env("KUBECONFIG", kubeconfig).args(args).current_dir(repository()).kill_on_drop(true);
        let output = command.output().await.with_context(|| format!("cannot start {name}"))?;
        let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        anyhow::ensure!(output.status.success(), "{name} {}: {}\n{stderr}{stdout}", args.join(" "), output.status);
        Ok(stdout)
    }

    /// As [`run_in_cluster`](Self::run_in_cluster), without a cluster.
    pub(crate) async fn run(self, args: &[&str]) -> anyhow::Result<String> {
        self.run_in_cluster(Path::new("/dev/null"), args).await
    }

    /// Renders a chart for the oldest supported version of Kubernetes.
    pub(crate) async fn template(self, chart: &str, extra_args: &[&str]) -> anyhow::Result<String> {
        let chart = format!("charts/{chart}");
        self.run(
            &[&["template", "main", &chart, "--namespace", "shop", "--kube-version", "1.33.0"], extra_args].concat(),
        )
        .await
    }

    /// The error of a chart that must not render with these arguments.
    pub(crate) async fn refusal(self, chart: &str, extra_args: &[&str]) -> anyhow::Result<String> {
        match self.template(chart, extra_args).await {
            Ok(_) => anyhow::bail!("{self:?} renders {chart} with {extra_args:?}"),
            Err(error) => Ok(error.to_string()),
        }
    }
}
