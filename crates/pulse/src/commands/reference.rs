//! `pulse reference`: prints tables for OPERATIONS.md as Markdown.

mod flags;
mod metrics;
mod problems;

use clap::{Command, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ReferenceCommand {
    /// Every command and flag
    Flags,
    /// Every metric
    Metrics,
    /// Every problem code
    Problems,
}

/// `programs` are the command lines of the binary, each with the name that runs it.
pub(crate) fn run(command: ReferenceCommand, programs: &[(&str, Command)]) -> anyhow::Result<()> {
    match command {
        ReferenceCommand::Flags => flags::print(programs),
        ReferenceCommand::Metrics => metrics::print(),
        ReferenceCommand::Problems => problems::print(),
    }
}
