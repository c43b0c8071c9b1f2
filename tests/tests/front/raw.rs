//! Clients that write bytes, not requests.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Raises the limit of this process' file descriptors.
pub(crate) fn allow_many_connections() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// Writes the whole request before it reads, as simple clients do, and returns the answer until the server closes the
/// connection, or until nothing arrives for `silence`.
///
/// # Errors
/// If the connection is reset, or stays open with more data for 20 s.
pub(crate) async fn exchange(stream: &mut TcpStream, request: &[u8], silence: Duration) -> anyhow::Result<String> {
    stream.write_all(request).await?;
    read(stream, silence).await
}

/// Returns the answer until the server closes the connection, or until nothing arrives for `silence`.
///
/// # Errors
/// As [`exchange`].
pub(crate) async fn read(stream: &mut TcpStream, silence: Duration) -> anyhow::Result<String> {
    let (mut text, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    let reading = async {
        while let Ok(length) = tokio::time::timeout(silence, stream.read(&mut piece)).await {
            match length? {
                0 => break,
                length => text.extend_from_slice(&piece[..length]),
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(TIMEOUT, reading).await??;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
