//! The archive: copies of old months, as compressed lines of JSON in a folder or in an S3-compatible store.
//!
//! A month is a folder `<table>/<year>-<month>` with a `manifest.json`, which names its files and their checksums. The
//! manifest is written last, so a month without one is not in the archive, and a file that no manifest names is left over.

mod archive;
mod copy;
mod error;
mod file;
mod manifest;
mod restore;
mod user;
mod verify;

pub use archive::Archive;
pub use copy::MonthCopies;
pub use error::ArchiveError;
pub use manifest::{FileEntry, Manifest};
pub use restore::{Restored, restore};
pub use user::{ErasedRows, erase_user, read_user};
pub use verify::verify;
