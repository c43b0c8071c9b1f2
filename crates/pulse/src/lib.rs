//! `pulse`: chooses a role, reads flags and environment, starts telemetry, and stops well.
//!
//! The binary is [`run`] with the built-in processing step. A team with a step of its own makes a binary of its own, as
//! `examples/my_processor.rs` does, and has every role and command; all that it needs is here.

mod args;
mod cli;
pub mod client;
mod commands;
pub mod datastores;
pub mod load;
mod output;
mod reload;
mod roles;
mod shutdown;
mod telemetry;

use std::process::ExitCode;
use std::sync::Arc;

pub use async_trait::async_trait;
use clap::Parser;
pub use pulse_core::Event;
pub use pulse_worker::{ProcessError, Processor};

use crate::cli::{Cli, Command};
use crate::commands::kubectl;

/// Runs what the command line says, with `processor` as the worker's processing step.
///
/// Under the name `kubectl-pulse` it is kubectl's plugin instead. The exit code is 0 when the role ended as told, 2 for a
/// wrong command line, and what the command documents otherwise.
#[must_use]
pub fn run(processor: Arc<dyn Processor>) -> ExitCode {
    pulse_tls::install_provider();
    if std::env::args_os().next().is_some_and(|program| kubectl::is_plugin(program.as_ref())) {
        let cli = kubectl::KubectlCli::parse();
        return block_on(kubectl::run(cli));
    }
    let Cli { log, command } = Cli::parse();
    block_on(async {
        let telemetry = telemetry::init(log.into_config("pulse"))?;
        let result = dispatch(command, processor).await;
        telemetry.shutdown().await;
        result
    })
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::from(error).context("failed to start threads")),
    };
    let code = runtime.block_on(work);
    // Whatever still blocks a thread does not keep the process.
    runtime.shutdown_background();
    code.unwrap_or_else(|error| fail(&error))
}

async fn dispatch(command: Command, processor: Arc<dyn Processor>) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Api(args) => args.reload.clone().run(|shutdown| commands::api::run(args, shutdown)).await,
        Command::Worker(args) => {
            args.reload.clone().run(|shutdown| commands::worker::run(args, processor, shutdown)).await
        }
        Command::Scheduler(args) => args.reload.clone().run(|shutdown| commands::scheduler::run(args, shutdown)).await,
        Command::Operator(args) => args.reload.clone().run(|shutdown| commands::operator::run(args, shutdown)).await,
        Command::Crd => commands::crd::run(),
        Command::Migrate(args) => return commands::migrate::run(args).await,
        Command::Dev(args) => commands::dev::run(*args, processor, shutdown::signal()?).await,
        Command::Check(args) => return commands::check::run(args).await,
        Command::Token(command) => commands::token::run(command),
        Command::User(command) => commands::user::run(command).await,
        Command::Tasks(command) => commands::tasks::run(command).await,
        Command::Queue(command) => commands::queue::run(command).await,
        Command::Load(args) => return commands::load::run(args, shutdown::signal()?).await,
        Command::Demo(args) => commands::demo::run(args).await,
        Command::Reference(args) => commands::reference::run(args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "the last word to the person who ran the command")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
