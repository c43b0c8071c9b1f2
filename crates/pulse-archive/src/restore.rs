//! Writes a month of the archive back into its table.

use std::time::Duration;

use pulse_store::{MonthlyTable, Store};

use crate::archive::Archive;
use crate::error::ArchiveError;
use crate::file::read_lines;
use crate::manifest::{FileEntry, Manifest};
use crate::verify::in_background;

/// Maximum number of rows of a statement.
const CHUNK_ROWS: usize = 1000;
/// Maximum size of the rows of a statement, in bytes; the first row may be larger.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// Numbers of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Rows of the archive.
    pub rows: u64,
    /// Rows that the table did not have.
    pub inserted: u64,
}

/// Inserts the rows of a month that the table does not have. Retention leaves the month alone for the time of `keep`. Calls
/// `progress` after each file. May be repeated.
///
/// # Errors
/// [`ArchiveError`]. Running it again continues.
pub async fn restore(
    archive: &Archive,
    store: &Store,
    manifest: &Manifest,
    keep: Duration,
    mut progress: impl FnMut(Restored),
) -> Result<Restored, ArchiveError> {
    let table = table_of(manifest)?;
    let last_id = manifest.files.last().and_then(|file| file.last_id.parse().ok()).unwrap_or(0);
    store.restore_month(table, manifest.from.date_naive(), keep, last_id).await?;
    let mut restored = Restored::default();
    for file in &manifest.files {
        let (content, entry) = (archive.read(manifest, file).await?, file.clone());
        for chunk in in_background(move || chunks(&content, &entry)).await? {
            restored.inserted += store.restore_rows(table, &chunk).await?;
            restored.rows += chunk.len() as u64;
        }
        progress(restored);
    }
    Ok(restored)
}

fn table_of(manifest: &Manifest) -> Result<MonthlyTable, ArchiveError> {
    let tables = [MonthlyTable::Events, MonthlyTable::TaskHistory];
    let found = tables.into_iter().find(|table| table.as_str() == manifest.table);
    found.ok_or_else(|| ArchiveError::damaged(&manifest.month(), format!("there is no table {}", manifest.table)))
}

fn chunks(content: &[u8], entry: &FileEntry) -> Result<Vec<Vec<String>>, ArchiveError> {
    let mut chunks: Vec<Vec<String>> = Vec::new();
    let mut bytes = 0;
    read_lines(content, entry, |line| {
        bytes += line.len();
        match chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK_ROWS && bytes <= CHUNK_BYTES => chunk.push(line),
            _ => {
                bytes = line.len();
                chunks.push(vec![line]);
            }
        }
        Ok(())
    })?;
    Ok(chunks)
}
