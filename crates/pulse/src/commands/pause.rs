//! `pulse pause` and `pulse resume`: stop and start all claims.

use clap::Args;

use crate::act_args::ActArgs;
use crate::args::DatabaseArgs;
use crate::output::print_line;

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    act: ActArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn pause(PauseArgs { act, database }: PauseArgs) -> anyhow::Result<()> {
    let store = database.connect("pause")?;
    if store.pause(&act.act()).await? {
        return print_line("claims are paused: running tasks end, and nothing is claimed until `pulse resume`");
    }
    match store.find_pause().await? {
        Some(pause) => print_line(&format!("claims are already paused, since {} by {}", pause.paused_at, pause.actor)),
        None => print_line("claims were resumed meanwhile"),
    }
}

pub(crate) async fn resume(PauseArgs { act, database }: PauseArgs) -> anyhow::Result<()> {
    let resumed = database.connect("resume")?.resume(&act.act()).await?;
    print_line(if resumed { "claims are resumed" } else { "claims are not paused" })
}
