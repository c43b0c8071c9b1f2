//! `kubectl pulse`: the kubectl plugin for `PulseIngest` objects. It is this binary under the name `kubectl-pulse`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use pulse_kubectl::{Pause, PendingPlan, Plugin, Target, text};

use crate::output::{print_json, print_line, print_text};

/// kubectl finds the plugin by this name on the PATH.
const NAME: &str = "kubectl-pulse";

/// Manage PulseIngest objects: show their status and planned changes, pause, resume, and approve migrations
#[derive(Debug, Parser)]
#[command(
    name = "kubectl pulse",
    bin_name = "kubectl pulse",
    version,
    about,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct KubectlCli {
    #[command(flatten)]
    target: TargetArgs,
    #[command(subcommand)]
    command: KubectlCommand,
}

#[derive(Debug, Args)]
struct TargetArgs {
    /// Namespace of the object; defaults to the namespace of the context
    #[arg(long, short, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Context of the kubeconfig; defaults to its current context
    #[arg(long, global = true, value_name = "CONTEXT")]
    context: Option<String>,
    /// Path to the kubeconfig; defaults to KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum KubectlCommand {
    /// Show conditions, pods, schema, scaling, errors and the next step; without a name, one line for each object
    Status {
        /// Name of the PulseIngest
        name: Option<String>,
        /// List the objects of all namespaces
        #[arg(long, short = 'A', conflicts_with = "name")]
        all_namespaces: bool,
        /// Print the result as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what an operator of this version would change now, without changing it
    Plan {
        /// Name of the PulseIngest
        name: String,
        /// Namespace of the operator; defaults to the namespace of the object
        #[arg(long, value_name = "NAMESPACE")]
        operator_namespace: Option<String>,
        /// Print the result as one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Pause the operator for this object: it writes the status only
    Pause {
        /// Name of the PulseIngest
        name: String,
        /// Pause autoscaling only
        #[arg(long)]
        scaling: bool,
    },
    /// Resume the operator and autoscaling
    Resume {
        /// Name of the PulseIngest
        name: String,
    },
    /// Approve the pending migration plan
    Approve {
        /// Name of the PulseIngest
        name: String,
        /// Expected hash of the plan; another plan is refused. Without it, the pending plan is approved
        hash: Option<String>,
    },
}

/// Whether a program with this path is the plugin: its file name is `kubectl-pulse`, with any extension.
pub(crate) fn is_plugin(program: &Path) -> bool {
    program.file_stem().is_some_and(|stem| stem == NAME)
}

pub(crate) async fn run_plugin() -> anyhow::Result<ExitCode> {
    let KubectlCli { target: TargetArgs { namespace, context, kubeconfig }, command } = KubectlCli::parse();
    let plugin = Plugin::connect(Target { kubeconfig, context, namespace }).await?;
    match command {
        KubectlCommand::Status { name: Some(name), all_namespaces: _, json } => {
            let report = plugin.status(&name).await?;
            if json { print_json(&report)? } else { print_text(report.to_string().trim_end())? }
        }
        KubectlCommand::Status { name: None, all_namespaces, json } => {
            let all = plugin.summaries(all_namespaces).await?;
            if json { print_json(&all)? } else { print_text(text::summaries(&all).trim_end())? }
        }
        KubectlCommand::Plan { name, operator_namespace, json } => {
            let preview = plugin.preview(&name, operator_namespace.as_deref()).await?;
            if json { print_json(&preview)? } else { print_text(preview.to_string().trim_end())? }
        }
        KubectlCommand::Pause { name, scaling } => {
            let what = if scaling { Pause::Scaling } else { Pause::All };
            print_line(&plugin.pause(&name, what).await?)?;
        }
        KubectlCommand::Resume { name } => print_line(&plugin.resume(&name).await?)?,
        KubectlCommand::Approve { name, hash } => approve(&plugin, &name, hash).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the pending plan, then approves it.
async fn approve(plugin: &Plugin, name: &str, hash: Option<String>) -> anyhow::Result<()> {
    let pending = plugin.pending(name).await?;
    print_text(&plan_text(&pending))?;
    let hash = hash.unwrap_or(pending.hash);
    plugin.approve(name, &hash).await?;
    print_line(&format!("approved {hash}: the operator starts the migration"))
}

fn plan_text(plan: &PendingPlan) -> String {
    let PendingPlan { hash, image, summary, allow_destructive } = plan;
    let mut lines = vec![format!("plan {hash} for {image}: {} migrations", summary.pending)];
    lines.extend(summary.names.iter().map(|name| format!("  {name}")));
    let more = summary.pending - i64::try_from(summary.names.len()).unwrap_or(i64::MAX);
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    if summary.destructive {
        let allowed =
            if *allow_destructive { "" } else { ": the migration fails unless migrations.allowDestructive is true" };
        lines.push(format!("  older versions cannot run afterwards{allowed}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn cli_definition_is_consistent() {
        KubectlCli::command().debug_assert();
    }

    #[test]
    fn plugin_is_recognised_by_its_file_name() {
        assert!(is_plugin(Path::new("/usr/local/bin/kubectl-pulse")));
        assert!(is_plugin(Path::new("kubectl-pulse.exe")));
        assert!(!is_plugin(Path::new("/kubectl-pulse/pulse")));
    }
}
