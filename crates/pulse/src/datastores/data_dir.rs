//! The data directory of the private servers.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tempfile::TempDir;

/// A directory that is kept, or a temporary one that is removed when this is dropped.
pub struct DataDir {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl DataDir {
    /// Opens the given directory, creating it if it does not exist. `None` creates a temporary one.
    ///
    /// # Errors
    /// If the directory cannot be created.
    pub fn open(kept: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = kept else {
            let temporary =
                tempfile::Builder::new().prefix("pulse-").tempdir().context("cannot create a temporary directory")?;
            // The servers may run as another user and have to enter it. The directories and files in it are private.
            set_mode(temporary.path(), 0o711)?;
            return Ok(Self { path: temporary.path().to_owned(), _temporary: Some(temporary) });
        };
        fs::create_dir_all(&path).with_context(|| format!("cannot create the data directory {}", path.display()))?;
        let path = fs::canonicalize(&path)?;
        Ok(Self { path, _temporary: None })
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the secret in the file `name`. The first call generates it; only this user can read the file.
    ///
    /// # Errors
    /// If the file can be neither read nor created.
    pub fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(secret) => return Ok(secret.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
        let secret = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let write = || {
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(secret.as_bytes())
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(secret)
    }
}

pub(super) fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}
