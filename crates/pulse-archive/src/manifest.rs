//! The list of what a month in the archive has.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::ArchiveError;

/// Name of the manifest in the folder of its month.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The format that this version writes and reads.
pub(crate) const FORMAT: &str = "pulse-archive/1";
/// A file names its users only up to this number of them.
pub(crate) const MAX_LISTED_USERS: usize = 10_000;

/// A month in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// `pulse-archive/1`.
    pub format: String,
    /// The instance whose data they are.
    pub instance: String,
    /// `events` or `task_history`.
    pub table: String,
    /// Begin of the month.
    pub from: DateTime<Utc>,
    /// End of the month, which is not part of it.
    pub until: DateTime<Utc>,
    /// Version of the database schema whose columns the rows have.
    pub schema: i64,
    /// Number of rows of all files.
    pub rows: u64,
    /// When it was written.
    pub written_at: DateTime<Utc>,
    /// Its files, in the order of the ids of their rows.
    pub files: Vec<FileEntry>,
}

/// A file of a month: lines of JSON, compressed with Zstandard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the folder of the month.
    pub name: String,
    /// Number of lines.
    pub rows: u64,
    /// Id of the first row.
    pub first_id: String,
    /// Id of the last row.
    pub last_id: String,
    /// Size in bytes, as stored.
    pub bytes: u64,
    /// Of the file as stored, in hexadecimal.
    pub sha256: String,
    /// Ids of the users whose rows it has, ascending; `None` if there are more than 10,000.
    pub users: Option<Vec<i64>>,
}

impl Manifest {
    /// Size of all files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The month, like `2026-01`.
    pub fn month(&self) -> String {
        self.from.format("%Y-%m").to_string()
    }

    /// The error for who wants to change a month of another instance.
    pub(crate) fn is_of_another_instance(&self) -> ArchiveError {
        let month = format!("{} {}", self.table, self.month());
        ArchiveError::OtherInstance { month, owner: self.instance.clone() }
    }
}
