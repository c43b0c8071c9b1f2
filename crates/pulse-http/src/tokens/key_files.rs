//! Keys in files, which are read again when they change.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::reread;
use crate::tokens::key::{Key, KeyError};
use crate::tokens::key_set::KeySet;
use crate::tokens::loaded::Loaded;

/// Parses the content of a file.
pub(crate) type Parse = fn(&[u8]) -> Result<Vec<Key>, KeyError>;

/// Why a file with keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("the key file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the read.
        #[source]
        source: io::Error,
    },
    /// The file was read, but has no usable key.
    #[error("the key file {} cannot be used: {source}", path.display())]
    Unusable {
        /// Path of the file.
        path: PathBuf,
        /// Error of the key.
        #[source]
        source: KeyError,
    },
}

/// Reads the keys of all files, and again whenever one of them changes. A change that cannot be used is logged, and the
/// keys stay as they were.
///
/// # Errors
/// If a file cannot be read or used now.
pub(crate) fn watch(paths: Vec<PathBuf>, parse: Parse) -> Result<watch::Receiver<Loaded>, KeyFileError> {
    let unreadable = |path: &Path, source| KeyFileError::Unreadable { path: path.to_owned(), source };
    let read = |path: &PathBuf| reread::read(path).map_err(|source| unreadable(path, source));
    let contents = paths.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut loaded = Loaded::default();
    loaded.note(Ok(key_set(&paths, &contents, parse)?));
    let (sender, receiver) = watch::channel(loaded);
    tokio::spawn(async move {
        let changed = |contents: &[Vec<u8>]| match key_set(&paths, contents, parse) {
            Ok(keys) => {
                sender.send_modify(|loaded| loaded.note(Ok(keys)));
                tracing::info!("the keys of tokens have changed");
            }
            Err(error) => tracing::error!(%error, "the keys of tokens have changed: the last ones stay in use"),
        };
        reread::on_change(paths.clone(), contents, sender.closed(), changed).await;
    });
    Ok(receiver)
}

fn key_set(paths: &[PathBuf], contents: &[Vec<u8>], parse: Parse) -> Result<KeySet, KeyFileError> {
    let mut keys = Vec::new();
    for (path, content) in paths.iter().zip(contents) {
        keys.extend(parse(content).map_err(|source| unusable(path, source))?);
    }
    KeySet::new(keys).map_err(|source| unusable(paths.last().map_or(Path::new(""), PathBuf::as_path), source))
}

fn unusable(path: &Path, source: KeyError) -> KeyFileError {
    KeyFileError::Unusable { path: path.to_owned(), source }
}
