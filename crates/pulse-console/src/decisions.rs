//! The decisions of the operator, from the file that it has mounted into the pod.

use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};
use pulse_core::{Decisions, MAX_DECISIONS_BYTES};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

/// Reads the decisions, and when the file was written; `None` without a file. It is read for each page, so a page shows the
/// latest.
///
/// # Errors
/// If the file cannot be read, is too long, or is no JSON of decisions.
pub(crate) async fn read(path: &Path) -> io::Result<Option<(Decisions, DateTime<Utc>)>> {
    let file = match File::open(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let written = file.metadata().await?.modified()?;
    let mut text = Vec::new();
    file.take(MAX_DECISIONS_BYTES as u64 + 1).read_to_end(&mut text).await?;
    if text.len() > MAX_DECISIONS_BYTES {
        return Err(io::Error::other(format!("it is longer than {MAX_DECISIONS_BYTES} bytes")));
    }
    Ok(Some((serde_json::from_slice(&text)?, written.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn decisions_file_may_be_absent_and_is_bounded() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("decisions.json");
        assert!(read(&path).await?.is_none());
        std::fs::write(&path, r#"{"generation":3,"later":true}"#)?;
        assert_eq!(read(&path).await?.map(|(decisions, _)| decisions.generation), Some(3));
        for wrong in ["", "{", &format!("{{\"generation\":3}}{}", " ".repeat(MAX_DECISIONS_BYTES))] {
            std::fs::write(&path, wrong)?;
            assert!(read(&path).await.is_err(), "{} bytes", wrong.len());
        }
        assert!(read(folder.path()).await.is_err(), "a folder");
        Ok(())
    }
}
