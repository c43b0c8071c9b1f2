//! `pulse user limit`: shows and changes the limits of a user.

use clap::Args;
use pulse_core::UserLimits;

use crate::act_args::ActArgs;
use crate::args::DatabaseArgs;
use crate::commands::unknown_user::unknown;
use crate::output::{print_json, print_table};
use crate::user_limit_args::LimitsOfUserArgs;

#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Name of the user: the `sub` of the tokens
    user: String,
    #[command(flatten)]
    limits: LimitsOfUserArgs,
    /// Remove all limits of the user first, so that those of the instance apply
    #[arg(long)]
    clear: bool,
    /// Print the limits as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    act: ActArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn run(args: LimitArgs) -> anyhow::Result<()> {
    let LimitArgs { user, limits, clear, json, act, database } = args;
    let store = database.connect("user")?;
    let act = act.act();
    let changes = UserLimits::from(limits);
    if clear && !store.clear_user_limits(&user, &act).await? {
        return Err(unknown(&user));
    }
    let limits = if changes == UserLimits::default() {
        store.find_user(&user).await?.map(|user| user.limits)
    } else {
        store.set_user_limits(&user, &changes, &act).await?
    };
    let limits = limits.ok_or_else(|| unknown(&user))?;
    if json { print_json(&limits) } else { print(&limits) }
}

fn print(limits: &UserLimits) -> anyhow::Result<()> {
    let text = |limit: Option<u32>| match limit {
        None => "of the instance".to_owned(),
        Some(0) => "none".to_owned(),
        Some(limit) => limit.to_string(),
    };
    let UserLimits { requests_per_second, events_per_second, bytes_per_second, max_in_flight, max_lists } = *limits;
    let rows = [
        ("requests per second", requests_per_second),
        ("events per second", events_per_second),
        ("bytes per second", bytes_per_second),
        ("requests in flight", max_in_flight),
        ("lists in flight", max_lists),
    ];
    print_table(&["LIMIT", "VALUE"], &rows.map(|(name, limit)| vec![name.into(), text(limit)]))
}
