//! Copies an old month to the archive: writes its files, reads them back, and compares them with the table.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::Utc;
use futures_util::TryStreamExt;
use pulse_scheduler::{CopiedMonth, MonthArchive};
use pulse_store::{ArchivedFile, MonthCopy, MonthRow, MonthlyTable, NextCopy, Store};
use serde_json::json;

use crate::archive::Archive;
use crate::error::ArchiveError;
use crate::file::FileWriter;
use crate::manifest::{FORMAT, FileEntry, Manifest};
use crate::verify::{in_background, verify_file};

/// Maximum number of rows of a file.
const FILE_ROWS: u64 = 100_000;
/// Size of a file before compression, in bytes, after which the next begins. A file is in memory while it is written.
const FILE_BYTES: usize = 64 * 1024 * 1024;

/// Size of the rows that are compressed at a time, in bytes.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Copies the months of an instance to its archive.
pub struct MonthCopies {
    /// Where to.
    pub archive: Archive,
    /// Where from.
    pub store: Store,
    /// Name of the instance, which owns its folders of the archive.
    pub instance: String,
}

#[async_trait]
impl MonthArchive for MonthCopies {
    async fn copy_next_month(
        &self,
        table: MonthlyTable,
        keep: Duration,
    ) -> Result<CopiedMonth, Box<dyn std::error::Error + Send + Sync>> {
        let copy = match self.store.begin_month_copy(table, keep).await? {
            NextCopy::None => return Ok(CopiedMonth::None),
            NextCopy::Blocked { partition, by } => return Ok(CopiedMonth::Blocked { partition, by }),
            NextCopy::Month(copy) => copy,
        };
        let Self { archive, store, instance } = self;
        let month = Month { archive, store, instance, name: copy.from.format("%Y-%m").to_string(), copy };
        let copied = month.copy().await;
        if let Err(ArchiveError::Damaged { .. }) = copied {
            // A file was deleted or changed after it was written: the next call begins again.
            store.abandon_month_copy(&month.copy).await?;
        }
        let manifest = copied?;
        let partition = month.copy.partition;
        Ok(match manifest {
            Some(Manifest { rows, .. }) => CopiedMonth::Verified { partition, rows },
            None => CopiedMonth::Changed { partition },
        })
    }
}

struct Month<'a> {
    archive: &'a Archive,
    store: &'a Store,
    instance: &'a str,
    /// Like `2026-01`.
    name: String,
    copy: MonthCopy,
}

impl Month<'_> {
    fn table(&self) -> &'static str {
        self.copy.table.as_str()
    }

    /// Returns `None` if a row has changed since the copy began.
    async fn copy(&self) -> Result<Option<Manifest>, ArchiveError> {
        self.check_owner().await?;
        let mut files = self.store.archived_files(&self.copy).await?;
        loop {
            let after = files.last().map(|file| file.last_id.as_str());
            let Some(file) = self.write_file(files.len(), after).await? else { break };
            if !self.store.add_archived_file(&self.copy, &file).await? {
                if !self.store.is_current_copy(self.copy.copy_id).await? {
                    self.archive.delete_file(self.table(), &self.name, &self.file_name(files.len())).await?;
                }
                return Ok(None);
            }
            files.push(file);
        }
        let manifest = self.manifest(&files)?;
        self.compare(&manifest).await?;
        self.archive.commit(&manifest).await?;
        let is_unchanged = self.store.finish_month_copy(&self.copy, manifest.rows).await?;
        Ok(is_unchanged.then_some(manifest))
    }

    /// Refuses a folder of another instance.
    async fn check_owner(&self) -> Result<(), ArchiveError> {
        match self.archive.find(self.copy.table, &self.name).await? {
            Some(manifest) if manifest.instance != self.instance => Err(manifest.is_of_another_instance()),
            _ => Ok(()),
        }
    }

    fn file_name(&self, number: usize) -> String {
        format!("{}-{number:05}.jsonl.zst", self.copy.copy_id.simple())
    }

    /// Writes the rows after an id; returns `None` if there are none.
    async fn write_file(&self, number: usize, after: Option<&str>) -> Result<Option<ArchivedFile>, ArchiveError> {
        let name = self.file_name(number);
        let mut writer = FileWriter::new()?;
        loop {
            let started = Instant::now();
            let after = writer.last_id().or(after).map(ToOwned::to_owned);
            let rows_before = writer.size().0;
            writer = self.append_rows(writer, after.as_deref()).await?;
            let (rows, text_bytes) = writer.size();
            if rows == rows_before || rows >= FILE_ROWS || text_bytes >= FILE_BYTES {
                break;
            }
            // Half of the time is left to others.
            tokio::time::sleep(started.elapsed()).await;
        }
        if writer.size().0 == 0 {
            return Ok(None);
        }
        let (content, entry) = writer.finish(name.clone())?;
        self.archive.write(self.table(), &self.name, &name, content).await?;
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        Ok(Some(ArchivedFile { number, last_id: entry.last_id.clone(), manifest: json!(entry) }))
    }

    /// Appends the rows of one statement.
    async fn append_rows(&self, mut writer: FileWriter, after: Option<&str>) -> Result<FileWriter, ArchiveError> {
        let mut rows = self.store.month_rows(&self.copy, after);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.try_next().await? {
            bytes += row.line.len();
            batch.push(row);
            if bytes >= BATCH_BYTES {
                let full = std::mem::take(&mut batch);
                writer = in_background(move || append(writer, full)).await?;
                bytes = 0;
            }
        }
        in_background(move || append(writer, batch)).await
    }

    fn manifest(&self, files: &[ArchivedFile]) -> Result<Manifest, ArchiveError> {
        let entry = |file: &ArchivedFile| {
            serde_json::from_value::<FileEntry>(file.manifest.clone())
                .map_err(|error| ArchiveError::damaged(&self.copy.partition, error.to_string()))
        };
        let files = files.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        Ok(Manifest {
            format: FORMAT.into(),
            instance: self.instance.into(),
            table: self.table().into(),
            from: self.copy.from,
            until: self.copy.until,
            schema: Store::schema_version(),
            rows: files.iter().map(|file| file.rows).sum(),
            written_at: Utc::now(),
            files,
        })
    }

    /// Reads each file back, and compares its number of rows with that of the table. Changed rows were noted.
    async fn compare(&self, manifest: &Manifest) -> Result<(), ArchiveError> {
        let mut after = None;
        for file in &manifest.files {
            verify_file(self.archive, manifest, file).await?;
            self.compare_count(file.rows, (after, Some(&file.last_id)), &file.name).await?;
            after = Some(file.last_id.as_str());
        }
        self.compare_count(0, (after, None), "the end of the copy").await
    }

    async fn compare_count(
        &self,
        rows: u64,
        (after, until): (Option<&str>, Option<&str>),
        file: &str,
    ) -> Result<(), ArchiveError> {
        let expected = self.store.count_month_rows(&self.copy, after, until).await?;
        if i64::try_from(rows) == Ok(expected) || !self.store.is_current_copy(self.copy.copy_id).await? {
            return Ok(());
        }
        Err(ArchiveError::damaged(file, format!("it has {rows} rows, and the table {expected}")))
    }
}

fn append(mut writer: FileWriter, rows: Vec<MonthRow>) -> Result<FileWriter, ArchiveError> {
    for row in rows {
        writer.write(row)?;
    }
    Ok(writer)
}
