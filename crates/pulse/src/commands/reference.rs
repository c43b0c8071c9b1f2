//! `pulse reference`: writes the generated pages of docs/reference as Markdown.

mod commands;
mod metrics;
mod object;
mod page;
mod problems;

use std::path::PathBuf;

use clap::{Args, Command};

#[derive(Debug, Args)]
pub(crate) struct ReferenceArgs {
    /// Folder to write the pages to
    folder: PathBuf,
}

/// `programs` are the command lines of the binary, each with the name that runs it.
pub(crate) fn run(args: &ReferenceArgs, programs: &[(&str, Command)]) -> anyhow::Result<()> {
    let mut pages = commands::pages(programs);
    pages.extend([metrics::page(), problems::page(), object::page()?]);
    pages.iter().try_for_each(|page| page.write(&args.folder))
}
