//! `pulse queue`: manages the keys of an instance in Redis.

use clap::{Args, Subcommand};

use crate::args::{InstanceArgs, RedisArgs};
use crate::output::print_line;

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Delete all Redis keys of the instance. No task is lost: the scheduler enqueues unsettled tasks again within
    /// seconds
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
    print_line(&format!("{deleted} keys of the instance `{instance}` deleted"))
}
