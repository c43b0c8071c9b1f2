//! `pulse user export`: prints all rows of a user.

use anyhow::{Context, bail};
use clap::Args;

use crate::args::DatabaseArgs;
use crate::commands::unknown_user::unknown;
use crate::output::{print_json_lines, print_progress};
use crate::row_progress::{RowProgress, numbers};

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Name of the user: the `sub` of the tokens
    user: String,
    #[command(flatten)]
    database: DatabaseArgs,
}

pub(crate) async fn run(ExportArgs { user, database }: ExportArgs) -> anyhow::Result<()> {
    let store = database.connect("user")?;
    let found = store.find_user(&user).await?.ok_or_else(|| unknown(&user))?;
    let mut export = store.export_user(&found);
    let mut progress = RowProgress::new("exported");
    while let Some(chunk) = export.next_chunk().await.context("the export is not complete")? {
        let table = chunk.table;
        // The JSON of PostgreSQL as it is: parsing it would change numbers with many digits.
        let lines = chunk.rows.into_iter().map(|row| format!(r#"{{"table":"{table}","row":{row}}}"#));
        if !print_json_lines(lines)? {
            bail!("the export is not complete: its reader has closed the pipe");
        }
        progress.show(export.rows());
    }
    let rows = export.rows();
    print_progress(&format!("exported {} rows of {user}: {}", rows.total(), numbers(rows)));
    Ok(())
}
