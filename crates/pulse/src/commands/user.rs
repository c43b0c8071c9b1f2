//! `pulse user`: lists users, and disables and enables their tokens.

use anyhow::bail;
use clap::{Args, Subcommand};
use pulse_store::User;

use crate::args::DatabaseArgs;
use crate::output::{print_json, print_line, print_table};

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List all users
    List(ListArgs),
    /// Disable a user. The API refuses all of the user's tokens within 10 s
    Disable(UserArgs),
    /// Enable a disabled user. The API accepts the user's tokens again within 10 s
    Enable(UserArgs),
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
    user: String,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn run(command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::List(args) => list(args).await,
        UserCommand::Disable(args) => set_disabled(args, true).await,
        UserCommand::Enable(args) => set_disabled(args, false).await,
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
                let User { id, subject, created_at, disabled_at } = user;
                let disabled = disabled_at.map_or("-".into(), |time| time.to_rfc3339());
                rows.push(vec![id.to_string(), subject, created_at.to_rfc3339(), disabled]);
            }
        }
    }
    if json { Ok(()) } else { print_table(&["ID", "USER", "CREATED", "DISABLED"], &rows) }
}

async fn set_disabled(UserArgs { user, database }: UserArgs, disabled: bool) -> anyhow::Result<()> {
    match database.connect("user")?.set_user_disabled(&user, disabled).await? {
        Some(_) => print_line(&format!("{user} {}", if disabled { "disabled" } else { "enabled" })),
        None => bail!("there is no user `{user}`: `pulse user list` shows all users"),
    }
}
