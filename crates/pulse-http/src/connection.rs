//! A connection with a time-out for reading the request head.
//!
//! hyper has one time-out for both reading a head and the idle time between two requests. The idle time may be long,
//! because clients keep connections alive; reading a head may not. So hyper's time-out limits the idle time, and this
//! module limits the head: from the accept, or from the first byte after an idle time, to the call of the service.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Time for which data of the client is read and discarded after a response to a request that was not read completely.
/// Closing at once would reset the connection, and the client would never see the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of bytes that are discarded.
const LINGER_BYTES: usize = 32 * 1024 * 1024;

/// The phase of a connection, shared by its stream and its service. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Phase(Arc<SharedPhase>);

#[derive(Default)]
struct SharedPhase {
    /// A [`Step`]; 0 is its first.
    step: AtomicU8,
    /// Linger before the connection is closed.
    lingers: AtomicBool,
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Step {
    /// The connection is new, or the client has begun to send a request.
    ReadingHead,
    /// The head was read and the service is called.
    InRequest,
    /// The service has returned a response.
    Idle,
}

impl Phase {
    /// The head was read and the service is called.
    pub(crate) fn request_began(&self) {
        self.set(Step::InRequest);
    }

    /// The service has returned a response.
    pub(crate) fn request_ended(&self) {
        self.set(Step::Idle);
    }

    /// Whether the connection is new, or the client has begun to send a request.
    pub(crate) fn is_reading_head(&self) -> bool {
        self.is(Step::ReadingHead)
    }

    /// Makes the connection linger when it is closed, because the rest of the request is not read.
    pub(crate) fn linger(&self) {
        self.0.lingers.store(true, Ordering::Relaxed);
    }

    fn lingers(&self) -> bool {
        self.0.lingers.load(Ordering::Relaxed)
    }

    fn is(&self, step: Step) -> bool {
        self.0.step.load(Ordering::Relaxed) == step as u8
    }

    fn set(&self, step: Step) {
        self.0.step.store(step as u8, Ordering::Relaxed);
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
        let was_idle = self.phase.is(Step::Idle);
        if self.phase.is_reading_head() && self.head_deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if was_idle {
            let deadline = Instant::now() + self.head_timeout;
            self.head_deadline.as_mut().reset(deadline);
            self.phase.set(Step::ReadingHead);
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
            if !this.phase.lingers() {
                return Poll::Ready(Ok(()));
            }
        }
        let fresh = || Linger { deadline: Box::pin(tokio::time::sleep(LINGER_TIMEOUT)), bytes_left: LINGER_BYTES };
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
