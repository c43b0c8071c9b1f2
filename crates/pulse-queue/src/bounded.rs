//! A stream that ends with an error once a server sends more than an answer may have.
//!
//! The library buffers an answer before it can be looked at, and trusts the length that the server announces. What it
//! makes of an answer takes up to 14 times the bytes of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum size of an answer, in bytes.
pub(crate) const MAX_ANSWER: u64 = 2 * 1024 * 1024;
/// Maximum size of all answers that this process reads at the same time, in bytes.
const MAX_ANSWERS: u64 = 4 * MAX_ANSWER;

/// Bytes of the answers that this process is reading.
static IN_PROCESS: AtomicU64 = AtomicU64::new(0);

/// The bytes that were read of the present answer. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct AnswerBytes(Arc<Counted>);

#[derive(Default)]
struct Counted(AtomicU64);

impl AnswerBytes {
    /// Begins the next answer.
    pub(crate) fn reset(&self) {
        self.0.reset();
    }

    /// Whether the answer was ended because of its size.
    pub(crate) fn are_too_many(&self) -> bool {
        self.0.0.load(Ordering::Relaxed) > MAX_ANSWER || IN_PROCESS.load(Ordering::Relaxed) > MAX_ANSWERS
    }

    fn add(&self, bytes: u64) {
        self.0.0.fetch_add(bytes, Ordering::Relaxed);
        IN_PROCESS.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Counted {
    fn reset(&self) {
        IN_PROCESS.fetch_sub(self.0.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.reset();
    }
}

/// A stream whose reads are counted and bounded.
pub(crate) struct Bounded<S> {
    pub(crate) stream: S,
    pub(crate) read: AnswerBytes,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.read.add((buffer.filled().len() - before) as u64);
        Poll::Ready(if self.read.are_too_many() { Err(io::Error::other("the answer is too long")) } else { Ok(()) })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
