//! `pulse queue`: the keys in Redis.

use clap::{Args, Subcommand};

use crate::args::{InstanceArgs, RedisArgs};
use crate::output::print_line;

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Delete every key of the instance. Nothing is lost: what is owed is enqueued again within seconds
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    instance: InstanceArgs,
    #[command(flatten)]
    redis: RedisArgs,
}

pub(crate) async fn run(command: QueueCommand) -> anyhow::Result<()> {
    let QueueCommand::Purge(PurgeArgs { instance: InstanceArgs { instance }, redis }) = command;
    let deleted = redis.connect(&instance)?.purge().await?;
    print_line(&format!("{deleted} keys of `{instance}` deleted"))
}
