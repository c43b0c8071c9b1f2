//! `pulse user`: lists users, disables and enables their tokens, holds them, limits them, exports and erases them.

use clap::{Args, Subcommand};
use pulse_core::UserLimits;
use pulse_store::User;

use crate::act_args::ActArgs;
use crate::args::DatabaseArgs;
use crate::commands::unknown_user::unknown;
use crate::commands::user_erase::{self, EraseArgs};
use crate::commands::user_export::{self, ExportArgs};
use crate::commands::user_limit::{self, LimitArgs};
use crate::output::{print_json, print_line, print_table};

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List all users
    List(ListArgs),
    /// Create a user, for an API that does not create users on first use (`--auto-provision=false`)
    Create(UserArgs),
    /// Disable a user, also one without a token so far. The API refuses all of the user's tokens within 10 s
    Disable(UserArgs),
    /// Enable a disabled user. The API accepts the user's tokens again within 10 s
    Enable(UserArgs),
    /// Show or change the limits of a user, which come before those of the instance. The API applies a change within 10 s
    Limit(LimitArgs),
    /// Print all rows of a user as lines of JSON, such as when the user asks for them. Reads in small statements
    /// beside other users' work
    Export(ExportArgs),
    /// Keep all data of a user, such as for a lawsuit: neither `pulse user erase` nor retention deletes any of it
    Hold(UserArgs),
    /// End the hold of a user. Retention then removes what is old
    Release(UserArgs),
    /// Disable a user and delete all of the user's events, tasks and idempotency keys, for good. The erasure runs in
    /// small transactions beside other users' work, and can be run again if it was interrupted. It prints a receipt
    Erase(EraseArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Print one line of JSON for each user
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    /// Name of the user: the `sub` of the tokens
    #[arg(value_parser = subject)]
    user: String,
    #[command(flatten)]
    act: ActArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn run(command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::List(args) => list(args).await,
        UserCommand::Create(args) => create(args).await,
        UserCommand::Disable(args) => disable(args).await,
        UserCommand::Enable(args) => enable(args).await,
        UserCommand::Limit(args) => user_limit::run(args).await,
        UserCommand::Export(args) => user_export::run(args).await,
        UserCommand::Hold(args) => hold(args).await,
        UserCommand::Release(args) => release(args).await,
        UserCommand::Erase(args) => user_erase::run(args).await,
    }
}

async fn list(ListArgs { database, json }: ListArgs) -> anyhow::Result<()> {
    let store = database.connect("user")?;
    let mut rows = Vec::new();
    let mut after = 0;
    loop {
        let users = store.list_users(after, 1000).await?;
        let Some(last) = users.last() else { break };
        after = last.id;
        for user in users {
            if json {
                print_json(&user)?;
            } else {
                let User { id, subject, created_at, disabled_at, held_at, limits } = user;
                let [disabled, held] =
                    [disabled_at, held_at].map(|since| since.map_or("-".into(), |time| time.to_rfc3339()));
                let limits = if limits == UserLimits::default() { "-" } else { "yes" }.to_owned();
                rows.push(vec![id.to_string(), subject, created_at.to_rfc3339(), disabled, held, limits]);
            }
        }
    }
    if json { Ok(()) } else { print_table(&["ID", "USER", "CREATED", "DISABLED", "HELD", "LIMITS"], &rows) }
}

async fn create(UserArgs { user, act, database }: UserArgs) -> anyhow::Result<()> {
    let created = database.connect("user")?.add_user(&user, &act.act()).await?;
    print_line(&format!("{user} {}", if created.is_some() { "created" } else { "exists already" }))
}

async fn disable(UserArgs { user, act, database }: UserArgs) -> anyhow::Result<()> {
    database.connect("user")?.disable_user(&user, &act.act()).await?;
    print_line(&format!("{user} disabled"))
}

async fn enable(UserArgs { user, act, database }: UserArgs) -> anyhow::Result<()> {
    let enabled = database.connect("user")?.enable_user(&user, &act.act()).await?;
    enabled.ok_or_else(|| unknown(&user))?;
    print_line(&format!("{user} enabled"))
}

async fn hold(UserArgs { user, act, database }: UserArgs) -> anyhow::Result<()> {
    let is_held = database.connect("user")?.hold_user(&user, &act.act()).await?;
    if is_held { print_line(&format!("{user} held")) } else { Err(unknown(&user)) }
}

async fn release(UserArgs { user, act, database }: UserArgs) -> anyhow::Result<()> {
    let is_released = database.connect("user")?.release_user(&user, &act.act()).await?;
    if is_released { print_line(&format!("{user} released")) } else { Err(unknown(&user)) }
}

/// Parses the name of a user, as the API accepts it in tokens.
fn subject(text: &str) -> Result<String, String> {
    let is_valid = (1..=255).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    is_valid.then(|| text.to_owned()).ok_or_else(|| "a name has 1 to 255 characters, and no control characters".into())
}
