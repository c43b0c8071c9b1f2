//! The stream of a connection, with time limits for the client.
//!
//! * **A head** has to arrive within a time from the accept, or from its first byte after an idle time. hyper has one
//!   time-out for both reading a head and the idle time between two requests, and that one has to be long.
//! * **A response** has to be read at a minimum rate.
//! * **An unread request** is read and discarded for a while after its response, because closing at once resets the
//!   connection, and the client or a proxy would never see the response.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::refused_head;
use crate::state::ConnectionState;
use crate::transport::{Protocol, Transport};

/// Time in which a client that does not read fast enough has to take [`MIN_WRITTEN`] bytes of a response.
const WRITE_WINDOW: Duration = Duration::from_secs(10);
/// 1 KiB/s.
const MIN_WRITTEN: usize = 10 * 1024;
/// Maximum time for which an unread request is discarded.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time without a part of it.
const LINGER_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of bytes that are discarded.
const LINGER_BYTES: usize = 32 * 1024 * 1024;

pub(crate) struct Connection {
    stream: Transport,
    protocol: Protocol,
    /// Bytes that were read to learn the protocol.
    read_before: Vec<u8>,
    state: Arc<ConnectionState>,
    head_timeout: Duration,
    head_deadline: Pin<Box<Sleep>>,
    /// Since when the client does not read fast enough.
    slow_write: Option<SlowWrite>,
    linger: Option<Linger>,
    /// The rest of a response in place of hyper's.
    refusal: Option<Refusal>,
}

struct SlowWrite {
    deadline: Pin<Box<Sleep>>,
    written: usize,
}

struct Linger {
    end: Instant,
    idle: Pin<Box<Sleep>>,
    bytes_left: usize,
}

struct Refusal {
    answer: Vec<u8>,
    written: usize,
    /// Number of bytes of hyper's response.
    replaced: usize,
}

impl Connection {
    /// `read_before` are the first bytes of the client, and may be empty.
    pub(crate) fn new(
        stream: Transport,
        protocol: Protocol,
        read_before: Vec<u8>,
        state: Arc<ConnectionState>,
        head_timeout: Duration,
    ) -> Self {
        let head_deadline = Box::pin(tokio::time::sleep(head_timeout));
        if protocol == Protocol::Http2 {
            // The client sees why the connection ends (GOAWAY) before a reset.
            state.linger();
        }
        Self {
            stream,
            protocol,
            read_before,
            state,
            head_timeout,
            head_deadline,
            slow_write: None,
            linger: None,
            refusal: None,
        }
    }

    /// Passes the result of a write on, unless the client has been too slow.
    fn at_minimum_rate(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let window = || Box::pin(tokio::time::sleep(WRITE_WINDOW));
        match (&write, &mut self.slow_write) {
            (Poll::Ready(Ok(bytes)), Some(slow)) => {
                slow.written += bytes;
                if slow.written >= MIN_WRITTEN {
                    self.slow_write = None;
                }
            }
            (Poll::Pending, slow) => {
                let slow = slow.get_or_insert_with(|| SlowWrite { deadline: window(), written: 0 });
                if slow.deadline.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            (Poll::Ready(_), _) => {}
        }
        write
    }

    /// Writes the answer to a head that hyper refused, in place of hyper's `response`. `None` if it refused none.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, response: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.protocol == Protocol::Http2 {
            return None;
        }
        if self.refusal.is_none() {
            let answer = refused_head::answer(response)?;
            self.state.linger();
            self.refusal = Some(Refusal { answer, written: 0, replaced: response.len() });
        }
        let refusal = self.refusal.as_mut()?;
        while refusal.written < refusal.answer.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &refusal.answer[refusal.written..]) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => refusal.written += bytes,
                Poll::Ready(Ok(_)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => return Some(self.at_minimum_rate(cx, Poll::Pending)),
            }
        }
        let replaced = refusal.replaced;
        self.refusal = None;
        Some(Poll::Ready(Ok(replaced)))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read_before.is_empty() {
            let read = std::mem::take(&mut self.read_before);
            let (now, later) = read.split_at(read.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.read_before = later.to_vec();
            return Poll::Ready(Ok(()));
        }
        // Clients of HTTP/2 also send other frames than those of a head.
        let was_idle = self.protocol == Protocol::Http1 && self.state.is_idle();
        if self.state.is_reading_head() && self.head_deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if was_idle {
            let deadline = Instant::now() + self.head_timeout;
            self.head_deadline.as_mut().reset(deadline);
            self.state.head_began();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(refused) = self.poll_refuse(cx, bytes) {
            return refused;
        }
        let write = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.at_minimum_rate(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [head] = parts {
            return self.poll_write(cx, head);
        }
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.at_minimum_rate(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS keeps bytes that the client does not take.
        let flush = Pin::new(&mut self.stream).poll_flush(cx).map_ok(|()| 0);
        let flushed = self.at_minimum_rate(cx, flush).map_ok(|_| ());
        if flushed.is_ready() {
            // Nothing waits for the client any more. Time until the next answer is not its.
            self.slow_write = None;
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            let shutdown = Pin::new(&mut this.stream).poll_shutdown(cx).map_ok(|()| 0);
            ready!(this.at_minimum_rate(cx, shutdown))?;
            if !this.state.lingers() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(Linger::new);
        while linger.bytes_left > 0 && !this.state.unwanted.is_cancelled() && linger.idle.as_mut().poll(cx).is_pending()
        {
            match ready!(discard(&mut this.stream, cx)) {
                0 => break,
                bytes => linger.received(bytes),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Linger {
    fn new() -> Self {
        let now = Instant::now();
        let idle = Box::pin(tokio::time::sleep_until(now + LINGER_IDLE_TIMEOUT));
        Self { end: now + LINGER_TIMEOUT, idle, bytes_left: LINGER_BYTES }
    }

    fn received(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.idle.as_mut().reset((Instant::now() + LINGER_IDLE_TIMEOUT).min(self.end));
    }
}

/// Reads bytes and drops them; returns how many, 0 at the end or after an error.
fn discard(stream: &mut Transport, cx: &mut Context<'_>) -> Poll<usize> {
    let mut scratch = [0; 16 * 1024];
    let mut buffer = ReadBuf::new(&mut scratch);
    match ready!(Pin::new(stream).poll_read(cx, &mut buffer)) {
        Ok(()) => Poll::Ready(buffer.filled().len()),
        Err(_) => Poll::Ready(0),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn client_that_took_everything_is_not_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let stream = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("connects");
        let state = Arc::new(ConnectionState::new());
        let mut connection =
            Connection::new(Transport::Plain(stream), Protocol::Http1, Vec::new(), state, Duration::from_secs(9));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(connection.at_minimum_rate(&mut cx, Poll::Pending).is_pending());
        assert!(connection.at_minimum_rate(&mut cx, Poll::Ready(Ok(100))).is_ready());
        assert!(connection.slow_write.is_some(), "a little is taken");
        assert!(Pin::new(&mut connection).poll_flush(&mut cx).is_ready());
        assert!(connection.slow_write.is_none(), "the next wait has a window of 10 s again");
    }
}
