//! What is known about a connection, shared by its stream, its service and the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// The state of one connection. Each field is independent of the others, so their order does not matter.
pub(crate) struct ConnectionState {
    /// A [`Step`].
    step: AtomicU8,
    /// A part of the body of the current request is unread.
    unread: AtomicBool,
    /// Linger before the connection is closed.
    lingers: AtomicBool,
    /// A request was answered without a client error.
    trusted: AtomicBool,
    opened: Instant,
    /// Time of the last response, in milliseconds after `opened`.
    active_ms: AtomicU32,
    /// Number of requests of HTTP/2 whose answers are not sent to their end.
    streams: AtomicU32,
    /// Cancelled to close the connection as soon as it is idle, because its place is needed.
    pub(crate) unwanted: CancellationToken,
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

impl ConnectionState {
    pub(crate) fn new() -> Self {
        Self {
            step: AtomicU8::new(Step::ReadingHead as u8),
            unread: AtomicBool::new(false),
            lingers: AtomicBool::new(false),
            trusted: AtomicBool::new(false),
            opened: Instant::now(),
            active_ms: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            unwanted: CancellationToken::new(),
        }
    }

    /// The client has begun to send a request.
    pub(crate) fn head_began(&self) {
        self.set(Step::ReadingHead);
    }

    /// The head was read and the service is called.
    pub(crate) fn request_began(&self, has_body: bool) {
        self.unread.store(has_body, Ordering::Relaxed);
        self.set(Step::InRequest);
    }

    /// The body of the request was read to its end.
    pub(crate) fn body_ended(&self) {
        self.unread.store(false, Ordering::Relaxed);
    }

    /// The service has returned a response. Returns whether the connection has to be closed after it, because a part of
    /// the request is unread.
    pub(crate) fn request_ended(&self, is_client_error: bool) -> bool {
        self.answered(is_client_error);
        self.set(Step::Idle);
        let unread = self.unread.load(Ordering::Relaxed);
        if unread {
            self.linger();
        }
        unread
    }

    /// The service has returned a response.
    pub(crate) fn answered(&self, is_client_error: bool) {
        let active_ms = u32::try_from(self.opened.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.active_ms.store(active_ms, Ordering::Relaxed);
        if !is_client_error {
            self.trusted.store(true, Ordering::Relaxed);
        }
    }

    /// A request of HTTP/2 was read; others of the connection may be active too.
    pub(crate) fn stream_began(self: &Arc<Self>) -> ActiveRequest {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.set(Step::InRequest);
        ActiveRequest(self.clone())
    }

    /// Whether the connection had no request for this time.
    pub(crate) fn is_idle_for(&self, time: Duration) -> bool {
        self.is_idle() && self.last_active().elapsed() >= time
    }

    fn last_active(&self) -> Instant {
        self.opened + Duration::from_millis(self.active_ms.load(Ordering::Relaxed).into())
    }

    /// Whether the connection is new, or the client has begun to send a request.
    pub(crate) fn is_reading_head(&self) -> bool {
        self.is(Step::ReadingHead)
    }

    /// Whether the service has returned a response, and no byte of another request has arrived.
    pub(crate) fn is_idle(&self) -> bool {
        self.is(Step::Idle)
    }

    /// Makes the connection linger when it is closed, because the rest of the request is not read.
    pub(crate) fn linger(&self) {
        self.lingers.store(true, Ordering::Relaxed);
    }

    pub(crate) fn lingers(&self) -> bool {
        self.lingers.load(Ordering::Relaxed)
    }

    /// The rank of a connection that may be closed to make room: the lowest first. `None` while it has a request, or if it
    /// is being closed.
    pub(crate) fn dispensable(&self) -> Option<(bool, Instant)> {
        (!self.is(Step::InRequest) && !self.unwanted.is_cancelled())
            .then(|| (self.trusted.load(Ordering::Relaxed), self.last_active()))
    }

    fn is(&self, step: Step) -> bool {
        self.step.load(Ordering::Relaxed) == step as u8
    }

    fn set(&self, step: Step) {
        self.step.store(step as u8, Ordering::Relaxed);
    }
}

/// A request of HTTP/2, which is active until this is dropped.
pub(crate) struct ActiveRequest(Arc<ConnectionState>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.answered(true);
            self.0.set(Step::Idle);
        }
    }
}
