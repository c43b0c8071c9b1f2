//! Files that may be replaced while the process runs, such as the ones of a mounted Secret.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time between two reads. The content is compared, because a mounted Secret is a link whose target changes, and its times
/// say nothing.
const PERIOD: Duration = Duration::from_secs(2);
/// Maximum size of a file, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// Reads a file.
///
/// # Errors
/// If it cannot be read, or is larger than 256 KiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 256 KiB"));
    }
    Ok(content)
}

/// Calls `changed` with the contents of all files each time that one of them differs from the last ones, until `unused`
/// ends. Files that cannot be read count as unchanged.
pub(crate) async fn on_change(
    paths: Vec<PathBuf>,
    mut last: Vec<Vec<u8>>,
    unused: impl Future<Output = ()>,
    mut changed: impl FnMut(&[Vec<u8>]),
) {
    tokio::pin!(unused);
    loop {
        tokio::select! {
            () = unused.as_mut() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let read_paths = paths.clone();
        let read_all = move || read_paths.iter().map(|path| read(path)).collect::<io::Result<Vec<_>>>();
        match tokio::task::spawn_blocking(read_all).await {
            Ok(Ok(contents)) if contents != last => {
                changed(&contents);
                last = contents;
            }
            _ => {}
        }
    }
}
