//! The command line: one subcommand for each role and each command.

use clap::{Parser, Subcommand};

use crate::args::LogArgs;
use crate::commands::{
    api, archive, check, console, demo, dev, kubernetes, load, migrate, pause, queue, scheduler, tasks, token, user,
    why, worker,
};

/// Event ingestion for Kubernetes: accept events over HTTP, store them in PostgreSQL, process them in the background.
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
    /// Run the HTTP API
    Api(Box<api::ApiArgs>),
    /// Run a worker, which processes tasks
    Worker(worker::WorkerArgs),
    /// Run the scheduler: requeue tasks, create partitions, measure the backlog. One of several schedulers is the
    /// leader
    Scheduler(scheduler::SchedulerArgs),
    /// Run the console: pages in which administrators see what happens, and act
    Console(Box<console::ConsoleArgs>),
    #[command(flatten)]
    Kubernetes(kubernetes::KubernetesCommand),
    /// Migrate the database schema to this version
    Migrate(migrate::MigrateArgs),
    /// Run API, worker, scheduler and console in one process, with a private PostgreSQL and Redis
    #[cfg_attr(not(feature = "dev-servers"), command(hide = true))]
    Dev(Box<dev::DevArgs>),
    /// Check PostgreSQL and Redis for settings that can lose events, or a cluster before an installation (--pre)
    Check(check::CheckArgs),
    /// Create tokens for the API
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List, disable, enable and delete users
    #[command(subcommand)]
    User(user::UserCommand),
    /// List, inspect, retry and cancel tasks
    #[command(subcommand)]
    Tasks(tasks::TasksCommand),
    /// Say why a task waits or how it ended, what to do, and what happened to it, from its request to its result
    Why(why::WhyArgs),
    /// Pause all workers: running tasks end, and nothing is claimed. The API accepts events as before
    Pause(pause::PauseArgs),
    /// Let all workers claim tasks again
    Resume(pause::PauseArgs),
    /// List, verify and restore the months of an archive
    #[cfg_attr(feature = "archive", command(subcommand))]
    Archive(archive::ArchiveCommand),
    /// Manage the queue in Redis
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Post events at a fixed rate and measure latency
    Load(load::LoadArgs),
    /// Post one event and one batch, and wait until they are processed
    Demo(demo::DemoArgs),
    /// Write the generated pages of docs/reference
    #[cfg(feature = "kubernetes")]
    #[command(hide = true)]
    Reference(crate::commands::reference::ReferenceArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn cli_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn role_flags_have_variables() {
        for command in Cli::command().get_subcommands() {
            if ["api", "worker", "scheduler", "console", "operator", "migrate"].contains(&command.get_name()) {
                for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
                    let variable =
                        argument.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                    assert!(variable.starts_with("PULSE_"), "{} --{}", command.get_name(), argument.get_id());
                }
            }
        }
    }
}
