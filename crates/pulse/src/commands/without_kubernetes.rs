//! Stands in for `kubernetes` in a build without the cargo feature of that name. `make run` makes such a build, because
//! the operator takes most of the time to compile.

use std::ffi::OsString;

use anyhow::bail;
use clap::Subcommand;

use crate::check_result::CheckResult;

#[derive(Debug, Subcommand)]
pub(crate) enum KubernetesCommand {
    /// Run the Kubernetes operator (not in this build)
    Operator {
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
    /// Print the CustomResourceDefinition of PulseIngest (not in this build)
    Crd,
}

pub(crate) async fn run(_: KubernetesCommand) -> anyhow::Result<()> {
    bail!(MISSING)
}

pub(crate) async fn check_cluster(_: Option<String>) -> anyhow::Result<Vec<CheckResult>> {
    bail!(MISSING)
}

const MISSING: &str = "this build has no Kubernetes commands: build one with `cargo build --release -p pulse`";
