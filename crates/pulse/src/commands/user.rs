//! `pulse user`: lists users, disables and enables their tokens, limits them, and deletes them.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use pulse_core::UserLimits;
use pulse_store::{DeletedRows, User};
use serde::Serialize;

use crate::act_args::ActArgs;
use crate::args::DatabaseArgs;
use crate::commands::unknown_user::unknown;
use crate::commands::user_limit::{self, LimitArgs};
use crate::output::{print_json, print_line, print_progress, print_table};

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
    /// Disable a user and delete all of the user's events, tasks and idempotency keys, for good. The deletion runs in
    /// small transactions beside other users' work, and can be run again if it was interrupted
    Delete(DeleteArgs),
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

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Name of the user: the `sub` of the tokens
    user: String,
    /// Confirm the deletion, which cannot be undone
    #[arg(long)]
    yes: bool,
    /// Print the numbers of deleted rows as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    act: ActArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// What `pulse user delete --json` prints.
#[derive(Serialize)]
struct DeletedUser<'a> {
    user: &'a str,
    deleted: DeletedRows,
}

pub(crate) async fn run(command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::List(args) => list(args).await,
        UserCommand::Create(args) => create(args).await,
        UserCommand::Disable(args) => disable(args).await,
        UserCommand::Enable(args) => enable(args).await,
        UserCommand::Limit(args) => user_limit::run(args).await,
        UserCommand::Delete(args) => delete(args).await,
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
                let User { id, subject, created_at, disabled_at, limits } = user;
                let disabled = disabled_at.map_or("-".into(), |time| time.to_rfc3339());
                let limits = if limits == UserLimits::default() { "-" } else { "yes" }.to_owned();
                rows.push(vec![id.to_string(), subject, created_at.to_rfc3339(), disabled, limits]);
            }
        }
    }
    if json { Ok(()) } else { print_table(&["ID", "USER", "CREATED", "DISABLED", "LIMITS"], &rows) }
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

/// Parses the name of a user, as the API accepts it in tokens.
fn subject(text: &str) -> Result<String, String> {
    let is_valid = (1..=255).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    is_valid.then(|| text.to_owned()).ok_or_else(|| "a name has 1 to 255 characters, and no control characters".into())
}

/// Time between two lines of progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

async fn delete(DeleteArgs { user, yes, json, act, database }: DeleteArgs) -> anyhow::Result<()> {
    if !yes {
        bail!("this deletes all events and tasks of `{user}` for good: confirm it with --yes");
    }
    let store = database.connect("user")?;
    let act = act.act();
    store.find_user(&user).await?.ok_or_else(|| unknown(&user))?;
    let disabled = store.disable_user(&user, &act).await?;
    print_progress(&format!("{user} is disabled: waiting until every API process knows, at most 10 s"));
    let mut printed = Instant::now();
    let progress = |rows: &DeletedRows| {
        if printed.elapsed() >= PROGRESS_PERIOD {
            printed = Instant::now();
            let rows = rows.tables().map(|(table, rows)| format!("{table} {rows}"));
            print_progress(&format!("deleted: {}", rows.join(", ")));
        }
    };
    let deleted = store.delete_user(&disabled, &act, progress).await.context(CONTINUE)?;
    if json {
        print_json(&DeletedUser { user: &user, deleted })?;
    } else {
        print_table(
            &["TABLE", "DELETED"],
            &deleted.tables().map(|(table, rows)| vec![table.into(), rows.to_string()]),
        )?;
    }
    if deleted.users == 0 {
        bail!("other transactions use rows of `{user}`: {CONTINUE}");
    }
    Ok(())
}

/// What to do after an interruption.
const CONTINUE: &str = "the user is not deleted completely; run the command again, which continues";
