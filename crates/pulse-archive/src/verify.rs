//! Reads an archive back.

use crate::archive::Archive;
use crate::error::ArchiveError;
use crate::file::read_lines;
use crate::manifest::{FileEntry, Manifest};

/// Reads all files of a month, and compares their checksums and numbers of rows with the manifest.
///
/// # Errors
/// [`ArchiveError::Damaged`] for the first wrong file, and [`ArchiveError::Unavailable`].
pub async fn verify(archive: &Archive, manifest: &Manifest) -> Result<(), ArchiveError> {
    for file in &manifest.files {
        verify_file(archive, manifest, file).await?;
    }
    Ok(())
}

pub(crate) async fn verify_file(archive: &Archive, manifest: &Manifest, file: &FileEntry) -> Result<(), ArchiveError> {
    let (content, entry) = (archive.read(manifest, file).await?, file.clone());
    in_background(move || read_lines(&content, &entry, |_| Ok(()))).await
}

/// Runs what takes a while on a thread for such work.
pub(crate) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
