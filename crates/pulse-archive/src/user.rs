//! The rows of one user in an archive: read for an export, and erased.

use bytes::Bytes;
use pulse_store::MonthRow;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::archive::Archive;
use crate::error::ArchiveError;
use crate::file::{FileWriter, read_lines};
use crate::manifest::{FileEntry, Manifest};
use crate::verify::in_background;

/// What was erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ErasedRows {
    /// Rows of the user.
    pub rows: u64,
    /// Files that were written again without them.
    pub files: u64,
}

/// The columns that say whose row it is.
#[derive(Deserialize)]
struct Owner {
    id: serde_json::Value,
    user_id: i64,
}

impl FileEntry {
    fn may_have(&self, user_id: i64) -> bool {
        self.users.as_ref().is_none_or(|users| users.binary_search(&user_id).is_ok())
    }
}

/// Calls `on_line` with table and line for each row of a user, a file at a time.
///
/// # Errors
/// [`ArchiveError`], and the error of `on_line`.
pub async fn read_user<E: From<ArchiveError>>(
    archive: &Archive,
    instance: &str,
    user_id: i64,
    mut on_line: impl FnMut(&str, &str) -> Result<(), E>,
) -> Result<(), E> {
    for manifest in of_instance(archive, instance).await? {
        for file in manifest.files.iter().filter(|file| file.may_have(user_id)) {
            let (content, entry) = (archive.read(&manifest, file).await?, file.clone());
            let lines = in_background(move || {
                let mut lines = Vec::new();
                read_lines(&content, &entry, |line| {
                    if owner_of(&entry, &line)?.user_id == user_id {
                        lines.push(line);
                    }
                    Ok(())
                })?;
                Ok(lines)
            });
            lines.await?.iter().try_for_each(|line| on_line(&manifest.table, line))?;
        }
    }
    Ok(())
}

/// Erases the rows of a user: writes the files that have some again, and deletes all files that no manifest names. The rows
/// have to be gone from PostgreSQL before, so that no copy writes them again. Calls `progress` after each month that had
/// some.
///
/// # Errors
/// [`ArchiveError`]. Running it again continues.
pub async fn erase_user(
    archive: &Archive,
    instance: &str,
    user_id: i64,
    mut progress: impl FnMut(&ErasedRows),
) -> Result<ErasedRows, ArchiveError> {
    let mut erased = ErasedRows::default();
    for mut manifest in of_instance(archive, instance).await? {
        let before = erased;
        let mut files = Vec::new();
        for file in std::mem::take(&mut manifest.files) {
            files.extend(if file.may_have(user_id) {
                erase_from_file(archive, &manifest, file, user_id, &mut erased).await?
            } else {
                Some(file)
            });
        }
        if erased != before {
            manifest.rows = files.iter().map(|file| file.rows).sum();
            manifest.files = files;
            archive.commit(&manifest).await?;
            progress(&erased);
        }
    }
    archive.delete_unnamed().await?;
    Ok(erased)
}

async fn of_instance(archive: &Archive, instance: &str) -> Result<Vec<Manifest>, ArchiveError> {
    let manifests = archive.list().await?;
    match manifests.iter().find(|manifest| manifest.instance != instance) {
        Some(other) => Err(other.is_of_another_instance()),
        None => Ok(manifests),
    }
}

/// Returns the file without the rows of the user, or `None` if no other row is left.
async fn erase_from_file(
    archive: &Archive,
    manifest: &Manifest,
    file: FileEntry,
    user_id: i64,
    erased: &mut ErasedRows,
) -> Result<Option<FileEntry>, ArchiveError> {
    let (content, before) = (archive.read(manifest, &file).await?, file.rows);
    let entry = file.clone();
    let kept = in_background(move || without_user(&content, &entry, user_id)).await?;
    let rows = kept.as_ref().map_or(0, |(_, file)| file.rows);
    if rows == before {
        return Ok(Some(file));
    }
    erased.rows += before - rows;
    erased.files += 1;
    let Some((content, file)) = kept else { return Ok(None) };
    archive.write(&manifest.table, &manifest.month(), &file.name, content).await?;
    Ok(Some(file))
}

fn without_user(content: &[u8], entry: &FileEntry, user_id: i64) -> Result<Option<(Bytes, FileEntry)>, ArchiveError> {
    let mut writer = FileWriter::new()?;
    read_lines(content, entry, |line| {
        let owner = owner_of(entry, &line)?;
        if owner.user_id != user_id {
            let id = owner.id.as_str().map_or_else(|| owner.id.to_string(), ToOwned::to_owned);
            writer.write(MonthRow { id, user_id: owner.user_id, line })?;
        }
        Ok(())
    })?;
    if writer.size().0 == 0 {
        return Ok(None);
    }
    // Its place among the files of the month stays in its name.
    let number = entry.name.split_once('-').map_or(entry.name.as_str(), |(_, number)| number);
    Ok(Some(writer.finish(format!("{}-{number}", Uuid::new_v4().simple()))?))
}

fn owner_of(entry: &FileEntry, line: &str) -> Result<Owner, ArchiveError> {
    serde_json::from_str(line).map_err(|error| ArchiveError::damaged(&entry.name, error.to_string()))
}
