//! The tasks that Redis knows.

use redis::streams::StreamRangeReply;
use uuid::Uuid;

use crate::connection::{ANSWER_TIMEOUT, Connection, Queue};
use crate::consumer::parse;
use crate::error::QueueError;
use crate::keys::{STREAMS, Stream};

/// Number of entries read by one command.
const PAGE: usize = 1000;

/// A walk over the entries of both streams, the oldest of each first.
pub struct Entries<'a> {
    queue: &'a Queue,
    connection: Connection,
    streams: std::slice::Iter<'static, Stream>,
    /// The stream that is read, and where its next page begins; `None` after the last one.
    next: Option<(Stream, String)>,
}

impl Queue {
    /// Begins a walk over the entries, delivered or not.
    pub fn entries(&self) -> Entries<'_> {
        let mut streams = STREAMS.iter();
        let next = first_page(&mut streams);
        Entries { queue: self, connection: self.probe_connection(), streams, next }
    }
}

impl Entries<'_> {
    /// The ids of the tasks of the next entries, at most 1,000, and without those of entries that are no tasks; `None` after
    /// the last ones.
    ///
    /// # Errors
    /// [`QueueError`] if Redis fails.
    pub async fn next(&mut self) -> Result<Option<Vec<Uuid>>, QueueError> {
        let Some((stream, start)) = self.next.take() else { return Ok(None) };
        let mut command = redis::cmd("XRANGE");
        command.arg(self.queue.keys.stream(stream)).arg(start).arg("+").arg("COUNT").arg(PAGE);
        let page: StreamRangeReply = self.connection.query(&command, ANSWER_TIMEOUT).await?;
        self.next = match page.ids.last() {
            Some(last) if page.ids.len() == PAGE => Some((stream, format!("({}", last.id))),
            _ => first_page(&mut self.streams),
        };
        Ok(Some(page.ids.into_iter().filter_map(|entry| parse(stream, entry).ok()).map(|it| it.task_id).collect()))
    }
}

fn first_page(streams: &mut std::slice::Iter<'static, Stream>) -> Option<(Stream, String)> {
    streams.next().map(|stream| (*stream, "-".to_owned()))
}
