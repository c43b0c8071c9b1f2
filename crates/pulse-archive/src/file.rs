//! Files of an archive: lines of JSON, compressed with Zstandard.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};

use bytes::Bytes;
use pulse_store::MonthRow;
use sha2::{Digest, Sha256};

use crate::error::ArchiveError;
use crate::manifest::{FileEntry, MAX_LISTED_USERS};

/// The default of Zstandard: higher levels take several times as long for a tenth less.
const LEVEL: i32 = 3;

/// A file that is being written, in memory.
pub(crate) struct FileWriter {
    encoder: zstd::Encoder<'static, Vec<u8>>,
    ids: Option<(String, String)>,
    users: BTreeSet<i64>,
    rows: u64,
    text_bytes: usize,
}

impl FileWriter {
    pub(crate) fn new() -> std::io::Result<Self> {
        let encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        Ok(Self { encoder, ids: None, users: BTreeSet::new(), rows: 0, text_bytes: 0 })
    }

    pub(crate) fn write(&mut self, row: MonthRow) -> std::io::Result<()> {
        let MonthRow { id, user_id, line } = row;
        self.encoder.write_all(line.as_bytes())?;
        self.encoder.write_all(b"\n")?;
        self.rows += 1;
        self.text_bytes += line.len() + 1;
        if self.users.len() <= MAX_LISTED_USERS {
            self.users.insert(user_id);
        }
        match &mut self.ids {
            Some((_, last)) => *last = id,
            ids => *ids = Some((id.clone(), id)),
        }
        Ok(())
    }

    /// Number of rows, and their size before compression in bytes.
    pub(crate) fn size(&self) -> (u64, usize) {
        (self.rows, self.text_bytes)
    }

    /// Id of the last row.
    pub(crate) fn last_id(&self) -> Option<&str> {
        self.ids.as_ref().map(|(_, last)| last.as_str())
    }

    /// The content, and its entry in a manifest.
    pub(crate) fn finish(self, name: String) -> std::io::Result<(Bytes, FileEntry)> {
        let content = Bytes::from(self.encoder.finish()?);
        let (first_id, last_id) = self.ids.unwrap_or_default();
        let users = (self.users.len() <= MAX_LISTED_USERS).then(|| self.users.into_iter().collect());
        let (bytes, sha256) = (content.len() as u64, checksum(&content));
        Ok((content, FileEntry { name, rows: self.rows, first_id, last_id, bytes, sha256, users }))
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn checksum(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Calls `on_line` for each line of a file, after its checksum.
///
/// # Errors
/// [`ArchiveError::Damaged`] if the content is not that of the entry, and the error of `on_line`.
pub(crate) fn read_lines(
    content: &[u8],
    entry: &FileEntry,
    mut on_line: impl FnMut(String) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let damaged = |problem: String| ArchiveError::damaged(&entry.name, problem);
    let sha256 = checksum(content);
    if sha256 != entry.sha256 {
        return Err(damaged(format!("its checksum is {sha256}, and {} in the manifest", entry.sha256)));
    }
    let decoder = zstd::Decoder::new(content).map_err(|error| damaged(error.to_string()))?;
    let mut rows = 0;
    for line in BufReader::new(decoder).lines() {
        on_line(line.map_err(|error| damaged(error.to_string()))?)?;
        rows += 1;
    }
    if rows != entry.rows {
        return Err(damaged(format!("it has {rows} rows, and {} in the manifest", entry.rows)));
    }
    Ok(())
}
