//! The command line: one subcommand per role or chore.

use clap::{Parser, Subcommand};

use crate::args::LogArgs;
use crate::commands::{
    api, check, demo, dev, load, migrate, operator, queue, reference, scheduler, tasks, token, user, worker,
};

/// Event ingestion for Kubernetes: accept over HTTP, keep in PostgreSQL, process in the background.
#[derive(Debug, Parser)]
#[command(
    name = "pulse",
    version,
    about,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the HTTP API
    Api(api::ApiArgs),
    /// Process tasks in the background
    Worker(worker::WorkerArgs),
    /// Sweep, create partitions, publish the backlog; one of any number is active
    Scheduler(scheduler::SchedulerArgs),
    /// Reconcile PulseIngest objects in Kubernetes
    Operator(operator::OperatorArgs),
    /// Print the definition of PulseIngest, for `kubectl apply --server-side -f -`
    Crd,
    /// Bring the database's schema up to this version
    Migrate(migrate::MigrateArgs),
    /// Run everything in one process, over a private PostgreSQL and Redis
    Dev(Box<dev::DevArgs>),
    /// Look for settings of PostgreSQL and Redis that break the promise, or of Kubernetes before an installation
    Check(check::CheckArgs),
    /// Make tokens for the API
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List, disable and enable users
    #[command(subcommand)]
    User(user::UserCommand),
    /// List, retry and cancel buried tasks
    #[command(subcommand)]
    Tasks(tasks::TasksCommand),
    /// Look after the Redis queue
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Post events at a rate and measure the answers
    Load(load::LoadArgs),
    /// Post one event and one batch, and follow them until they are processed
    Demo(demo::DemoArgs),
    /// Print the reference of all flags, as Markdown
    #[command(hide = true)]
    Reference(reference::ReferenceArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable() {
        for command in Cli::command().get_subcommands() {
            if ["api", "worker", "scheduler", "operator", "migrate"].contains(&command.get_name()) {
                for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
                    let variable =
                        argument.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                    assert!(variable.starts_with("PULSE_"), "{} --{}", command.get_name(), argument.get_id());
                }
            }
        }
    }
}
