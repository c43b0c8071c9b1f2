//! Recognizes HTTP/2 without TLS by its first bytes (RFC 9113, section 3.4), which no request of HTTP/1.1 has.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::transport::Protocol;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads as much as it takes to know the version of HTTP; at most 24 bytes. Returns them too.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Protocol, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(PREFACE.len());
    while bytes.len() < PREFACE.len() {
        let rest = PREFACE.len() - bytes.len();
        if (&mut *stream).take(rest as u64).read_buf(&mut bytes).await? == 0 || !PREFACE.starts_with(&bytes) {
            return Ok((Protocol::Http1, bytes));
        }
    }
    Ok((Protocol::Http2, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn preface_is_recognized_among_requests_of_http_1() {
        for (sent, protocol) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0"[..], Protocol::Http2),
            (b"POST / HTTP/1.1\r\n", Protocol::Http1),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Protocol::Http1),
            (b"PRI", Protocol::Http1),
            (b"", Protocol::Http1),
        ] {
            let mut stream = byte_by_byte(sent);
            let (read, bytes) = read(&mut stream).await.expect("bytes in memory");
            assert_eq!(read, protocol, "{}", String::from_utf8_lossy(sent));
            assert!(sent.starts_with(&bytes));
        }
    }

    /// A stream that has one byte at a time.
    fn byte_by_byte(bytes: &'static [u8]) -> impl AsyncRead + Unpin {
        let (client, mut server) = tokio::io::duplex(1);
        tokio::spawn(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut server, bytes).await;
        });
        client
    }
}
