//! A connection that must send a whole request head in time.
//!
//! hyper has one time-out for two things: the pieces of a head, and the pause between two requests of a connection. A
//! pause may be long, because clients keep connections; a head may not. So hyper's guards the pause, and this the head:
//! from a connection's start, and from the first byte after a pause, to the call of the service.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

const READING_HEAD: u8 = 0;
const IN_REQUEST: u8 = 1;
const PAUSING: u8 = 2;

/// After an answer to a request whose rest is not read: how long, and how many bytes, the client may still send. Closing
/// at once would reset the connection, and the client would never see the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 32 * 1024 * 1024;

/// Where a connection is; shared by its stream and its service.
#[derive(Clone, Default)]
pub(crate) struct Phase(Arc<AtomicU8>, Arc<AtomicBool>);

impl Phase {
    /// A head was read: the service is called.
    pub(crate) fn request_began(&self) {
        self.0.store(IN_REQUEST, Ordering::Relaxed);
    }

    /// The service has answered.
    pub(crate) fn request_ended(&self) {
        self.0.store(PAUSING, Ordering::Relaxed);
    }

    /// A client has connected, or has begun to send a request.
    pub(crate) fn is_reading_head(&self) -> bool {
        self.0.load(Ordering::Relaxed) == READING_HEAD
    }

    /// The rest of the request is not read: let the client see the answer.
    pub(crate) fn linger(&self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    phase: Phase,
    head_timeout: Duration,
    head_deadline: Pin<Box<Sleep>>,
    linger: Option<Linger>,
}

struct Linger {
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, phase: Phase, head_timeout: Duration) -> Self {
        Self { stream, phase, head_timeout, head_deadline: Box::pin(tokio::time::sleep(head_timeout)), linger: None }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let phase = self.phase.0.load(Ordering::Relaxed);
        if phase == READING_HEAD && self.head_deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if phase == PAUSING {
            let deadline = Instant::now() + self.head_timeout;
            self.head_deadline.as_mut().reset(deadline);
            self.phase.0.store(READING_HEAD, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            if !this.phase.1.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let fresh = || Linger { deadline: Box::pin(tokio::time::sleep(LINGER)), bytes_left: LINGER_BYTES };
        let linger = this.linger.get_or_insert_with(fresh);
        let mut scratch = [0; 16 * 1024];
        while linger.bytes_left > 0 && linger.deadline.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    linger.bytes_left = linger.bytes_left.saturating_sub(buffer.filled().len());
                }
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
