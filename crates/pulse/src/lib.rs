//! `pulse`: parses flags and environment, starts telemetry, runs a role or a command, and shuts it down gracefully.
//!
//! The binary is [`run`] with the built-in processor. A team with its own processor builds its own binary, as
//! `examples/my_processor.rs` does. That binary has every role and command, and needs this crate only.

mod access_log_args;
mod act_args;
#[cfg_attr(not(feature = "archive"), path = "without_archive_args.rs")]
mod archive_args;
mod args;
mod auth_args;
mod check_result;
mod cli;
pub mod client;
mod commands;
mod connection_limit;
#[cfg(feature = "dev-servers")]
pub mod datastores;
mod encryption_policy;
mod key_audit;
pub mod load;
mod memory_limit;
mod metrics;
mod output;
mod panic_log;
mod printable;
#[cfg_attr(not(feature = "dev-reload"), path = "no_reload.rs")]
mod reload;
mod retention_args;
mod roles;
mod row_progress;
mod schema_gate;
mod secret;
#[cfg(all(test, feature = "kubernetes"))]
mod settings_tests;
mod shutdown;
mod story;
mod telemetry;
mod token_args;
mod trace;
mod user_limit_args;

use std::process::ExitCode;
use std::sync::Arc;

pub use async_trait::async_trait;
#[cfg(feature = "kubernetes")]
use clap::CommandFactory;
use clap::Parser;
pub use pulse_core::{Event, TextFields};
pub use pulse_worker::{ProcessError, Processor};

use crate::cli::{Cli, Command};
use crate::commands::kubernetes;
pub use crate::memory_limit::memory_limit;

/// glibc keeps what a burst of large bodies has used; docs/decisions/0019-memory-in-bytes.md has the figures.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs the command line of the process. Workers call `processor` for each event.
///
/// A program with the name `kubectl-pulse` is the kubectl plugin instead. The exit code is 0 if a role stopped after a
/// signal or a command succeeded, 2 for a wrong command line, and otherwise the one that docs/reference/exit-codes.md lists.
#[must_use]
pub fn run(processor: Arc<dyn Processor>) -> ExitCode {
    pulse_tls::install_provider();
    #[cfg(feature = "kubernetes")]
    if std::env::args_os().next().is_some_and(|program| kubernetes::is_plugin(program.as_ref())) {
        return block_on(kubernetes::run_plugin());
    }
    let Cli { log, command } = Cli::parse();
    block_on(async {
        encryption_policy::require(log.require_tls);
        let telemetry = telemetry::init(log.into_config("pulse"))?;
        connection_limit::raise_descriptor_limit();
        let result = dispatch(command, processor).await;
        telemetry.shutdown().await;
        result
    })
}

fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::from(error).context("failed to start threads")),
    };
    let code = runtime.block_on(command);
    // A processor that still blocks a thread must not keep the process alive.
    runtime.shutdown_background();
    code.unwrap_or_else(|error| fail(&error))
}

async fn dispatch(command: Command, processor: Arc<dyn Processor>) -> anyhow::Result<ExitCode> {
    let result = match command {
        Command::Api(args) => args.reload.clone().run(|shutdown| commands::api::run(*args, shutdown)).await,
        Command::Worker(args) => {
            args.reload.clone().run(|shutdown| commands::worker::run(args, processor, shutdown)).await
        }
        Command::Scheduler(args) => args.reload.clone().run(|shutdown| commands::scheduler::run(args, shutdown)).await,
        Command::Console(args) => args.reload.clone().run(|shutdown| commands::console::run(*args, shutdown)).await,
        Command::Kubernetes(command) => kubernetes::run(command).await,
        Command::Migrate(args) => return commands::migrate::run(args).await,
        Command::Dev(args) => commands::dev::run(*args, processor, shutdown::signal()?).await,
        Command::Check(args) => return commands::check::run(args).await,
        Command::Token(command) => commands::token::run(command),
        Command::User(command) => commands::user::run(command).await,
        Command::Tasks(command) => commands::tasks::run(command).await,
        Command::Why(args) => commands::why::run(args).await,
        Command::Pause(args) => commands::pause::pause(args).await,
        Command::Resume(args) => commands::pause::resume(args).await,
        Command::Archive(command) => return commands::archive::run(command).await,
        Command::Queue(command) => commands::queue::run(command).await,
        Command::Load(args) => return commands::load::run(args, shutdown::signal()?).await,
        Command::Demo(args) => commands::demo::run(args, shutdown::signal()?).await,
        #[cfg(feature = "kubernetes")]
        Command::Reference(args) => {
            let plugin = kubernetes::KubectlCli::command();
            commands::reference::run(&args, &[("pulse", Cli::command()), ("kubectl pulse", plugin)])
        }
    };
    result.map(|()| ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "the final error message is for the user, not for the log")]
fn fail(error: &anyhow::Error) -> ExitCode {
    // Some errors have lines, such as the end of a server's log.
    eprintln!("{}", printable::printable(&format!("error: {error:#}")).replace('\n', "\n    "));
    ExitCode::FAILURE
}
