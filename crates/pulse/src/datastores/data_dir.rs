//! Where private servers keep their data.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tempfile::TempDir;

/// A folder that is kept, or one that is removed at the end.
pub struct DataDir {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl DataDir {
    /// The given folder, created if need be, or a temporary one.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn open(kept: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = kept else {
            let temporary = tempfile::Builder::new().prefix("pulse-").tempdir().context("failed to create a folder")?;
            // The servers may run as somebody else; what is in it is for them or for us alone.
            set_mode(temporary.path(), 0o711)?;
            return Ok(Self { path: temporary.path().to_owned(), _temporary: Some(temporary) });
        };
        fs::create_dir_all(&path).with_context(|| format!("failed to create the data folder {}", path.display()))?;
        let path = fs::canonicalize(&path)?;
        Ok(Self { path, _temporary: None })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret of this name: made once, kept with the data, readable by us alone.
    ///
    /// # Errors
    /// If it can be neither read nor written.
    pub fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(secret) => return Ok(secret.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
        }
        let secret = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let write = || {
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?.write_all(secret.as_bytes())
        };
        write().with_context(|| format!("failed to write {}", path.display()))?;
        Ok(secret)
    }
}

pub(super) fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("failed to set the mode of {}", path.display()))
}
