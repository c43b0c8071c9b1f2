//! Stands in for `dev` in a build without the cargo feature `dev-servers`. The image has such a build: nothing in it
//! can start a PostgreSQL.

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use pulse_worker::Processor;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

pub(crate) async fn run(
    DevArgs { flags: _ }: DevArgs,
    _: Arc<dyn Processor>,
    _: CancellationToken,
) -> anyhow::Result<()> {
    bail!("this build has no `pulse dev`: build one with `cargo build --release -p pulse`")
}
