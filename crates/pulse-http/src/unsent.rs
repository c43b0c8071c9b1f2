//! Answers of HTTP/2 that the client has to take. Its flow control lets a client stop each of them for as long as it likes,
//! without a sign on the connection, so what waits to be sent has a deadline.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::state::ActiveRequest;

/// Time to take a part of an answer, and on top a second for each KiB: as slow as a client of HTTP/1.1 may be.
const TIMEOUT: Duration = Duration::from_secs(10);
const BYTES_PER_SECOND: usize = 1024;

/// The parts of answers of one connection that are not sent yet.
#[derive(Clone, Default)]
pub(crate) struct Unsent(Arc<Mutex<Parts>>);

#[derive(Default)]
struct Parts {
    next: u64,
    deadlines: HashMap<u64, Instant>,
}

impl Unsent {
    /// Whether the client did not take a part in time.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.parts().deadlines.values().any(|deadline| *deadline <= now)
    }

    /// The same bytes, whose deadline ends when they are dropped: after they were sent, or with their stream.
    fn watched(&self, bytes: Bytes, now: Instant) -> Bytes {
        let seconds = u64::try_from(bytes.len() / BYTES_PER_SECOND).unwrap_or(u64::MAX);
        let deadline = now + TIMEOUT + Duration::from_secs(seconds);
        let mut parts = self.parts();
        let id = parts.next;
        parts.next += 1;
        parts.deadlines.insert(id, deadline);
        drop(parts);
        Bytes::from_owner(Part { bytes, id, unsent: self.clone() })
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Part {
    bytes: Bytes,
    id: u64,
    unsent: Unsent,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.unsent.parts().deadlines.remove(&self.id);
    }
}

/// The body of an answer. Its request is active until this is dropped.
pub(crate) struct UnsentBody {
    body: Body,
    unsent: Unsent,
    _active: ActiveRequest,
}

impl UnsentBody {
    pub(crate) fn new(body: Body, unsent: Unsent, active: ActiveRequest) -> Self {
        Self { body, unsent, _active: active }
    }
}

impl HttpBody for UnsentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(
            frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| self.unsent.watched(bytes, Instant::now())))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_is_overdue_until_it_is_dropped() {
        let (unsent, start) = (Unsent::default(), Instant::now());
        let small = unsent.watched(Bytes::from_static(b"a"), start);
        let large = unsent.watched(vec![0; 60 * 1024].into(), start);
        assert!(unsent.is_overdue(start + TIMEOUT));
        drop(small);
        assert!(!unsent.is_overdue(start + TIMEOUT));
        let copy = large.slice(1..2);
        drop(large);
        let later = start + TIMEOUT + Duration::from_secs(60);
        assert!(unsent.is_overdue(later), "a part of it waits");
        drop(copy);
        assert!(!unsent.is_overdue(later));
    }
}
