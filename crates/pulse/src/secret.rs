//! Secrets from files. A variable is inherited by each child process, and a hand-written pod shows it; the content of a file
//! is not.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};

/// Maximum size of a file, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The secret of a flag or variable, or of the file whose path the flag `file_flag` has; `None` without both. Errors have no
/// part of it.
pub(crate) fn of(value: Option<String>, file_flag: &str, path: Option<&Path>) -> anyhow::Result<Option<String>> {
    match (value, path) {
        (None, Some(path)) => {
            let secret = read(path).with_context(|| format!("cannot use {} of {file_flag}", path.display()))?;
            Ok(Some(secret))
        }
        (value, _) => Ok(value),
    }
}

/// The text without one line end behind it. Editors, `echo` and `kubectl create secret --from-file` put it there.
pub(crate) fn without_line_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

/// Reads a file without the line end behind the secret.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    ensure!(content.len() as u64 <= MAX_BYTES, "it is larger than 64 KiB");
    let text = String::from_utf8(content).ok().context("it is not UTF-8")?;
    let secret = without_line_end(&text);
    ensure!(!secret.is_empty(), "it is empty");
    Ok(secret.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_of_a_file_has_no_line_end_and_its_errors_no_content() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).expect("is written");
            of(None, "--a-file", Some(&path)).map_err(|error| format!("{error:#}"))
        };
        for (content, secret) in [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a ")] {
            assert_eq!(read(content.as_bytes()), Ok(Some(secret.to_owned())));
        }
        for (content, problem) in [(&b"\n"[..], "empty"), (b"marker\xff", "UTF-8"), (&[b'm'; 70_000], "64 KiB")] {
            let error = read(content).expect_err(problem);
            assert!(error.contains(problem) && error.contains("--a-file") && !error.contains("marker"), "{error}");
        }
        assert_eq!(of(Some("a".into()), "--a-file", None).ok(), Some(Some("a".into())));
        assert!(of(None, "--a-file", Some(Path::new("/gone"))).is_err());
    }
}
