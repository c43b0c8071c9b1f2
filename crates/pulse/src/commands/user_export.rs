//! `pulse user export`: prints all rows of a user.

use anyhow::{Context, bail};
use clap::Args;

use crate::archive_args::UserArchiveArgs;
use crate::args::DatabaseArgs;
use crate::commands::unknown_user::unknown;
use crate::output::{print_json_lines, print_progress};
use crate::row_progress::{RowProgress, numbers};

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Name of the user: the `sub` of the tokens
    user: String,
    #[command(flatten)]
    archive: UserArchiveArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn run(ExportArgs { user, archive, database }: ExportArgs) -> anyhow::Result<()> {
    let store = database.connect("user")?;
    let found = store.find_user(&user).await?.ok_or_else(|| unknown(&user))?;
    let archive = archive.open(&store).await?;
    let mut export = store.export_user(&found);
    let mut progress = RowProgress::new("exported");
    while let Some(chunk) = export.next_chunk().await.context("the export is not complete")? {
        let table = chunk.table;
        // The JSON of PostgreSQL as it is: parsing it would change numbers with many digits.
        let lines = chunk.rows.into_iter().map(|row| format!(r#"{{"table":"{table}","row":{row}}}"#));
        print_all(lines)?;
        progress.show(export.rows());
    }
    let mut archived = 0_u64;
    let print_archived = |table: &str, row: &str| {
        archived += 1;
        print_all([format!(r#"{{"table":"{table}","archived":true,"row":{row}}}"#)].into_iter())
    };
    archive.read(found.id, print_archived).await.context("the export is not complete")?;
    let rows = export.rows();
    print_progress(&format!(
        "exported {} rows of {user}: {}, archive {archived}",
        rows.total() + archived,
        numbers(rows)
    ));
    Ok(())
}

fn print_all(lines: impl Iterator<Item = String>) -> anyhow::Result<()> {
    if print_json_lines(lines)? { Ok(()) } else { bail!("the export is not complete: its reader has closed the pipe") }
}
