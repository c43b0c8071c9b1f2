//! `pulse user erase`: deletes all data of a user, also in the archive, and prints a receipt.

use anyhow::{Context, bail};
use clap::Args;
use pulse_store::{Act, EraseError, ErasedUser, Store, User, UserRows};
use serde::Serialize;
use uuid::Uuid;

use crate::act_args::ActArgs;
use crate::archive_args::{UserArchive, UserArchiveArgs};
use crate::args::DatabaseArgs;
use crate::commands::unknown_user::unknown;
use crate::output::{print_json, print_line, print_progress, print_table};
use crate::row_progress::{RowProgress, numbers};

#[derive(Debug, Args)]
pub(crate) struct EraseArgs {
    /// Name of the user: the `sub` of the tokens
    user: String,
    /// Confirm the erasure, which cannot be undone
    #[arg(long)]
    yes: bool,
    /// Print the receipt as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    act: ActArgs,
    #[command(flatten)]
    archive: UserArchiveArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// What was erased, when, by whom and why. Its times are those of the audit log, where `act` has the same rows.
#[derive(Serialize)]
struct Receipt<'a> {
    user: &'a str,
    act: Uuid,
    actor: &'a str,
    reason: Option<&'a str>,
    #[serde(flatten)]
    times: ErasedUser,
    /// By this run of the command: an interrupted one before it has deleted others.
    deleted: UserRows,
    archive: FromArchive,
}

/// Numbers of rows deleted, and of files that were written again without them or are gone.
#[derive(Debug, Default, Serialize)]
struct FromArchive {
    rows: u64,
    files: u64,
}

pub(crate) async fn run(EraseArgs { user, yes, json, act, archive, database }: EraseArgs) -> anyhow::Result<()> {
    if !yes {
        bail!("this deletes all events and tasks of `{user}` for good: confirm it with --yes");
    }
    let store = database.connect("user")?;
    let act = act.act();
    let found = store.find_user(&user).await?.ok_or_else(|| unknown(&user))?;
    if let Some(since) = found.held_at {
        return Err(EraseError::OnHold(since).into());
    }
    let archive = archive.open(&store).await?;
    let disabled = store.disable_user(&user, &act).await?;
    print_progress(&format!("{user} is disabled: the API refuses the user within 10 s"));
    let mut deleted = UserRows::default();
    let (times, archive) = match erase((&store, &archive), &disabled, &act, &mut deleted).await {
        Ok(erased) => erased,
        Err(error) => {
            let numbers = numbers(&deleted);
            return Err(error).context(format!("{CONTINUE} (deleted until now: {numbers})"));
        }
    };
    let receipt =
        Receipt { user: &user, act: act.id, actor: &act.actor, reason: act.reason.as_deref(), times, deleted, archive };
    if json { print_json(&receipt) } else { print(&receipt) }
}

/// What to do after an interruption.
const CONTINUE: &str = "the user is not erased completely; run the command again, which continues";

async fn erase(
    (store, archive): (&Store, &UserArchive),
    user: &User,
    act: &Act,
    deleted: &mut UserRows,
) -> anyhow::Result<(ErasedUser, FromArchive)> {
    let mut progress = RowProgress::new("deleted");
    store.erase_rows(user, deleted, |rows| progress.show(rows)).await?;
    // The user is still known, so that an interrupted erasure can be run again.
    let (rows, files) = archive.erase(user.id).await.context("cannot erase the user from the archive")?;
    loop {
        if let Some(times) = store.erase_user_row(user, act, deleted).await? {
            return Ok((times, FromArchive { rows, files }));
        }
        print_progress("the user has posted meanwhile: deleting these rows too");
        store.erase_rows(user, deleted, |rows| progress.show(rows)).await?;
    }
}

fn print(receipt: &Receipt<'_>) -> anyhow::Result<()> {
    let Receipt { user, act, actor, reason, times: ErasedUser { started_at, finished_at }, deleted, archive } = receipt;
    print_line(&format!("{user} erased by {actor}, from {} to {}", started_at.to_rfc3339(), finished_at.to_rfc3339()))?;
    print_line(&format!("act {act} in the audit log, reason: {}", reason.unwrap_or("-")))?;
    let rows = deleted.tables().into_iter().chain([("archive", archive.rows)]);
    let rows: Vec<_> = rows.map(|(table, rows)| vec![table.into(), rows.to_string()]).collect();
    print_table(&["TABLE", "DELETED"], &rows)
}
