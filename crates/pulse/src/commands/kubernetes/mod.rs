//! Commands for Kubernetes: the operator, its CustomResourceDefinition, the check of a cluster and the kubectl plugin.

mod crd;
mod kubectl;
mod operator;

use clap::Subcommand;
use pulse_operator::{Finding, Kubernetes};

pub(crate) use self::kubectl::{KubectlCli, is_plugin, run_plugin};
use crate::check_result::{CheckResult, check};

#[derive(Debug, Subcommand)]
pub(crate) enum KubernetesCommand {
    /// Run the Kubernetes operator, which reconciles PulseIngest objects
    Operator(Box<operator::OperatorArgs>),
    /// Print the CustomResourceDefinition of PulseIngest, for `kubectl apply --server-side -f -`
    Crd,
}

pub(crate) async fn run(command: KubernetesCommand) -> anyhow::Result<()> {
    match command {
        KubernetesCommand::Operator(args) => args.reload.clone().run(|shutdown| operator::run(*args, shutdown)).await,
        KubernetesCommand::Crd => crd::run(),
    }
}

/// Checks a cluster before an installation. Without a `namespace`, it is that of the kubeconfig's context.
pub(crate) async fn check_cluster(namespace: Option<String>) -> anyhow::Result<Vec<CheckResult>> {
    let kubernetes = Kubernetes::infer().await?;
    let namespace = namespace.unwrap_or_else(|| kubernetes.namespace().to_owned());
    let findings = pulse_operator::preflight(&kubernetes, &namespace).await?;
    Ok(findings.into_iter().map(|Finding { name, value, fix }| check("kubernetes", name, value, fix)).collect())
}
