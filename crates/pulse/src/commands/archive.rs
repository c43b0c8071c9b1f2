//! `pulse archive`: lists, verifies and restores the months of an archive.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use pulse_archive::{Archive, ArchiveError, Manifest, Restored};
use pulse_store::MonthlyTable;
use serde::Serialize;

use crate::args::{DatabaseArgs, duration};
use crate::output::{print_json, print_line, print_progress, print_table};

/// The exit code if a month is damaged.
const DAMAGED: u8 = 25;

#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// List the months of an archive
    List(ListArgs),
    /// Read all files of an archive, and compare their checksums and numbers of rows with the manifests
    Verify(ListArgs),
    /// Insert the rows of a month that the database does not have. They can be read as before, and retention leaves the month
    /// alone for the time of --keep. May be repeated
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ArchiveUrl {
    /// Folder (file:///FOLDER) or S3-compatible store (s3://BUCKET/PREFIX). Variables such as AWS_ACCESS_KEY_ID, AWS_REGION
    /// and AWS_ENDPOINT apply
    #[arg(long, env = "PULSE_ARCHIVE", value_name = "URL")]
    archive: String,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    url: ArchiveUrl,
    /// Print one line of JSON for each month
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Table
    table: Table,
    /// Month, such as 2026-01
    month: String,
    #[command(flatten)]
    url: ArchiveUrl,
    /// Time for which retention leaves the month alone
    #[arg(long, default_value = "7d", value_parser = duration)]
    keep: Duration,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Table {
    Events,
    TaskHistory,
}

/// A month as `--json` prints it; `problem` says what is damaged.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Month<'a> {
    table: &'a str,
    month: String,
    rows: u64,
    files: usize,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl<'a> From<&'a Manifest> for Month<'a> {
    fn from(manifest: &'a Manifest) -> Self {
        let (month, bytes) = (manifest.month(), manifest.bytes());
        Self { table: &manifest.table, month, rows: manifest.rows, files: manifest.files.len(), bytes, problem: None }
    }
}

pub(crate) async fn run(command: ArchiveCommand) -> anyhow::Result<ExitCode> {
    match command {
        ArchiveCommand::List(args) => list(args).await,
        ArchiveCommand::Verify(args) => verify(args).await,
        ArchiveCommand::Restore(args) => restore(args).await,
    }
}

async fn list(ListArgs { url, json }: ListArgs) -> anyhow::Result<ExitCode> {
    let manifests = Archive::open(&url.archive)?.list().await?;
    let months: Vec<Month<'_>> = manifests.iter().map(Month::from).collect();
    if json {
        months.iter().try_for_each(print_json)?;
    } else {
        let row = |month: &Month<'_>| {
            vec![
                month.table.into(),
                month.month.clone(),
                month.rows.to_string(),
                month.files.to_string(),
                month.bytes.to_string(),
            ]
        };
        print_table(&["TABLE", "MONTH", "ROWS", "FILES", "BYTES"], &months.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(ListArgs { url, json }: ListArgs) -> anyhow::Result<ExitCode> {
    let archive = Archive::open(&url.archive)?;
    let mut code = ExitCode::SUCCESS;
    for manifest in archive.list().await? {
        let mut month = Month::from(&manifest);
        match pulse_archive::verify(&archive, &manifest).await {
            Err(damaged @ ArchiveError::Damaged { .. }) => {
                code = ExitCode::from(DAMAGED);
                month.problem = Some(damaged.to_string());
            }
            verified => verified?,
        }
        if json {
            print_json(&month)?;
        } else {
            let Month { table, month, rows, files, problem, .. } = month;
            let result = problem.unwrap_or_else(|| format!("{rows} rows in {files} files are as they were written"));
            print_line(&format!("{table} {month}: {result}"))?;
        }
    }
    Ok(code)
}

async fn restore(RestoreArgs { table, month, url, keep, database }: RestoreArgs) -> anyhow::Result<ExitCode> {
    let (archive, store) = (Archive::open(&url.archive)?, database.connect("archive")?);
    let table = match table {
        Table::Events => MonthlyTable::Events,
        Table::TaskHistory => MonthlyTable::TaskHistory,
    };
    let manifest = archive.find(table, &month).await?;
    let manifest = manifest.ok_or_else(|| ArchiveError::NoSuchMonth(format!("{} of {month}", table.as_str())))?;
    let progress = |done: Restored| print_progress(&format!("{} of {} rows", done.rows, manifest.rows));
    let Restored { rows, inserted } = pulse_archive::restore(&archive, &store, &manifest, keep, progress)
        .await
        .context("not all rows are restored: run the command again, which continues")?;
    print_line(&format!("restored {inserted} of {rows} rows; the database had the others"))?;
    Ok(ExitCode::SUCCESS)
}
