//! `pulse queue`: the keys in Redis.

use clap::{Args, Subcommand};

use crate::args::{IngestArgs, RedisArgs};
use crate::output::print_line;

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Delete every key of the ingest. Nothing is lost: what is owed is enqueued again within seconds
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    ingest: IngestArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

pub(crate) async fn run(command: QueueCommand) -> anyhow::Result<()> {
    let QueueCommand::Purge(PurgeArgs { ingest: IngestArgs { ingest }, redis }) = command;
    let deleted = redis.connect(&ingest)?.purge().await?;
    print_line(&format!("{deleted} keys of `{ingest}` deleted"))
}
