//! `kubectl pulse`: what this binary does under the name `kubectl-pulse`, for people who look after objects.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use pulse_operator::plugin::{Pause, PendingPlan, Plugin, Target, text};

use crate::output::{print_json, print_line};

/// Under this name, kubectl finds us on the PATH.
const NAME: &str = "kubectl-pulse";

/// Look after PulseIngest objects: how they are, what would change, pause, resume, approve
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
    /// The namespace; that of the context, if not given
    #[arg(long, short, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The context of the kubeconfig; its current one, if not given
    #[arg(long, global = true, value_name = "CONTEXT")]
    context: Option<String>,
    /// The kubeconfig; that of KUBECONFIG or ~/.kube/config, if not given
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum KubectlCommand {
    /// Show conditions, pods, schema, scaling, errors and the next step; without a name, a line for each object
    Status {
        /// The object
        name: Option<String>,
        /// Objects of every namespace
        #[arg(long, short = 'A', conflicts_with = "name")]
        all_namespaces: bool,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what the operator of this version would change now, and change nothing
    Plan {
        /// The object
        name: String,
        /// Where the operator runs; the object's namespace, if not given
        #[arg(long, value_name = "NAMESPACE")]
        operator_namespace: Option<String>,
        /// Print one line of JSON
        #[arg(long)]
        json: bool,
    },
    /// Hold everything but the status
    Pause {
        /// The object
        name: String,
        /// Hold the number of workers alone
        #[arg(long)]
        scaling: bool,
    },
    /// End every pause
    Resume {
        /// The object
        name: String,
    },
    /// Approve the migration plan that waits
    Approve {
        /// The object
        name: String,
        /// The hash that the plan must have; whatever it has, if not given
        hash: Option<String>,
    },
}

/// Whether a program of that path is the plugin.
pub(crate) fn is_plugin(program: &Path) -> bool {
    program.file_stem().is_some_and(|stem| stem == NAME)
}

pub(crate) async fn run(cli: KubectlCli) -> anyhow::Result<ExitCode> {
    let KubectlCli { target: TargetArgs { namespace, context, kubeconfig }, command } = cli;
    let plugin = Plugin::connect(Target { kubeconfig, context, namespace }).await?;
    match command {
        KubectlCommand::Status { name: Some(name), all_namespaces: _, json } => {
            let report = plugin.status(&name).await?;
            if json { print_json(&report)? } else { print_line(report.to_string().trim_end())? }
        }
        KubectlCommand::Status { name: None, all_namespaces, json } => {
            let all = plugin.summaries(all_namespaces).await?;
            if json { print_json(&all)? } else { print_line(text::summaries(&all).trim_end())? }
        }
        KubectlCommand::Plan { name, operator_namespace, json } => {
            let preview = plugin.preview(&name, operator_namespace.as_deref()).await?;
            if json { print_json(&preview)? } else { print_line(preview.to_string().trim_end())? }
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

/// Says what is approved before it is.
async fn approve(plugin: &Plugin, name: &str, hash: Option<String>) -> anyhow::Result<()> {
    let pending = plugin.pending(name).await?;
    print_line(&plan_text(&pending))?;
    let hash = hash.unwrap_or(pending.hash);
    plugin.approve(name, &hash).await?;
    print_line(&format!("approved {hash}: the operator migrates now"))
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
        let allowed = if *allow_destructive { "" } else { ": it fails unless migrations.allowDestructive is true" };
        lines.push(format!("  after it, older versions cannot run{allowed}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        KubectlCli::command().debug_assert();
    }

    #[test]
    fn the_name_alone_makes_it_the_plugin() {
        assert!(is_plugin(Path::new("/usr/local/bin/kubectl-pulse")));
        assert!(is_plugin(Path::new("kubectl-pulse.exe")));
        assert!(!is_plugin(Path::new("/kubectl-pulse/pulse")));
    }
}
