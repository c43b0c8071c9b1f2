//! Stands in for `archive` in a build without the cargo feature of that name, such as that of `make run`.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ArchiveCommand {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

pub(crate) async fn run(_: ArchiveCommand) -> anyhow::Result<ExitCode> {
    bail!("this build has no archive: build one with `cargo build --release -p pulse`")
}
