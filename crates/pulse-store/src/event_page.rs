//! A page of a user's events, bounded in events, in bytes, in events that are read for it, and in time.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;

use crate::connection::Store;
use crate::error::StoreError;
use crate::event_walk::{Step, Walked};
use crate::events::{EventFilter, PageStart, Position, StoredEvent};

/// Maximum number of events that the first statement of a page reads: enough for a page of the default size, and few
/// enough not to be many megabytes.
const FIRST_STEP: i64 = 51;
/// Number of statements in which a page reads all that it may read, so that each ends in time even if all events have to
/// come from disk.
const STEPS: i64 = 6;
/// Time after which a page ends with what was found.
const MAX_TIME: Duration = Duration::from_millis(500);
/// Size of an event without its variable fields, in bytes of JSON.
const FIXED_BYTES: usize = 400;

/// A page of events.
#[derive(Debug, Default)]
pub struct EventPage {
    /// The events, newest first.
    pub events: Vec<StoredEvent>,
    /// Where the next page continues; `None` on the last page.
    pub next: Option<Position>,
    /// Size of the events.
    bytes: usize,
}

/// A page that cannot be returned.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A statement reached a limit of PostgreSQL.
    #[error("the events could not be read in time")]
    TooBroad(#[source] StoreError),
    /// The page may not read as many events as the offset skips.
    #[error("the offset is beyond the events that a page reads")]
    OffsetTooFar,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for ListError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::StatementLimit(_) => Self::TooBroad(error),
            error => Self::Store(error),
        }
    }
}

/// Limits of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// Maximum number of events.
    pub events: i64,
    /// Size from which a page is complete, in bytes of JSON. A page always has an event, however large.
    pub bytes: usize,
    /// Maximum number of events to read, whether they match or not.
    pub walk: i64,
}

impl EventPage {
    /// Adds the next event if there is room for it.
    fn add(&mut self, event: StoredEvent, limits: PageLimits) {
        let bytes = self.bytes + size(&event);
        let fits = self.len() < limits.events && bytes <= limits.bytes;
        if fits || self.events.is_empty() {
            self.bytes = bytes;
            self.events.push(event);
        } else {
            self.next = self.events.last().map(StoredEvent::position);
        }
    }

    fn len(&self) -> i64 {
        i64::try_from(self.events.len()).unwrap_or(i64::MAX)
    }

    /// Returns how many events to read next, from the mean size of those read so far: what fits, and one more, which shows
    /// whether there is a next page.
    fn next_step(&self, limits: PageLimits) -> i64 {
        let left = limits.events - self.len() + 1;
        let fitting = match self.bytes.checked_div(self.events.len()) {
            None => FIRST_STEP,
            Some(mean) => {
                i64::try_from(limits.bytes.saturating_sub(self.bytes) / mean.max(1)).unwrap_or(i64::MAX - 1) + 1
            }
        };
        fitting.min(left)
    }
}

/// About the size of the event in bytes of JSON.
fn size(event: &StoredEvent) -> usize {
    let fields = &event.fields;
    let texts = [&fields.source, &fields.session_id, &fields.ip_address, &fields.user_agent, &event.processing_error];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    let properties = event.properties.as_ref().map_or(0, |properties| properties.get().len());
    FIXED_BYTES + fields.event_name.len() + fields.event_type.len() + texts + event.payload.get().len() + properties
}

impl Store {
    /// Returns a page of the user's events, newest first.
    ///
    /// Reads the page in steps, each of about as many events as fit, so that large events are not read in vain. Of a long
    /// history in which few events match, it reads a part: the page then has fewer events than `limits`, maybe none, and
    /// the position at which the next page continues.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn list_events(
        &self,
        user_id: i64,
        filter: &EventFilter,
        start: PageStart,
        limits: PageLimits,
    ) -> Result<EventPage, ListError> {
        let started = Instant::now();
        let mut page = EventPage::default();
        let (mut after, mut offset) = match start {
            PageStart::Offset(offset) => (None, offset),
            PageStart::After(position) => (Some(position), 0),
        };
        let mut left = limits.walk;
        let step_walk = (limits.walk / STEPS).max(1);
        while left > 0 && started.elapsed() < MAX_TIME {
            let step = Step { after, offset, walk: left.min(step_walk), limit: page.next_step(limits) };
            let Some(end) = self.read_step(user_id, filter, step, limits, &mut page).await? else { return Ok(page) };
            after = Some(end.position);
            offset = (offset - end.matched).max(0);
            left -= end.read;
        }
        if offset > 0 {
            return Err(ListError::OffsetTooFar);
        }
        page.next = after;
        Ok(page)
    }

    /// Adds the events of a step to the page. Returns the end of the step, or `None` if the page is complete.
    async fn read_step(
        &self,
        user_id: i64,
        filter: &EventFilter,
        step: Step,
        limits: PageLimits,
        page: &mut EventPage,
    ) -> Result<Option<StepEnd>, ListError> {
        let mut rows = 0;
        let mut end = None;
        let mut walked = self.walk_events(user_id, filter, step);
        while let Some(row) = walked.try_next().await? {
            rows += 1;
            let Walked { event, matches, read, matched } = row;
            end = Some(StepEnd { position: event.position(), read, matched });
            if matches && matched > step.offset {
                page.add(event, limits);
            }
            if page.next.is_some() {
                return Ok(None);
            }
        }
        Ok(end.filter(|end| rows == step.limit || end.read == step.walk))
    }
}

/// The last event of a step.
struct StepEnd {
    position: Position,
    /// Number of events that the step has read.
    read: i64,
    /// Number of those that match.
    matched: i64,
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use pulse_core::TextFields;
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;

    const LIMITS: PageLimits = PageLimits { events: 100, bytes: 10_000, walk: 12_000 };

    /// An event of this size.
    fn event(bytes: usize) -> StoredEvent {
        let event_name = "x".repeat(bytes - FIXED_BYTES - 2);
        let fields = TextFields { event_name, ..TextFields::default() };
        StoredEvent {
            id: 1,
            user_id: 1,
            fields,
            payload: RawValue::from_string("{}".into()).expect("JSON"),
            properties: None,
            event_timestamp: DateTime::UNIX_EPOCH,
            created_at: DateTime::UNIX_EPOCH,
            processed: false,
            processed_at: None,
            processing_error: None,
            task_id: Uuid::nil(),
        }
    }

    fn page(sizes: &[usize]) -> EventPage {
        let mut page = EventPage::default();
        for bytes in sizes {
            page.add(event(*bytes), LIMITS);
        }
        page
    }

    #[test]
    fn page_ends_before_the_event_that_does_not_fit() {
        let full = page(&[5000, 5000]);
        assert_eq!((full.events.len(), full.next.is_some()), (2, false));
        let more = page(&[5000, 5000, 500]);
        assert_eq!((more.events.len(), more.next.is_some()), (2, true));
        let many = page(&[500; 30]);
        assert_eq!((many.events.len(), many.next.is_some()), (20, true));
    }

    #[test]
    fn page_has_an_event_even_if_it_is_larger_than_the_page() {
        let large = page(&[20_000]);
        assert_eq!((large.events.len(), large.next.is_some()), (1, false));
        assert_eq!((page(&[20_000, 500]).events.len(), page(&[20_000, 500]).next.is_some()), (1, true));
    }

    #[test]
    fn step_reads_what_fits_and_one_event_more() {
        assert_eq!(page(&[]).next_step(LIMITS), FIRST_STEP);
        assert_eq!(page(&[]).next_step(PageLimits { events: 9, ..LIMITS }), 10);
        assert_eq!(page(&[1000; 4]).next_step(LIMITS), 7);
        assert_eq!(page(&[1000; 4]).next_step(PageLimits { events: 5, ..LIMITS }), 2);
        assert_eq!(page(&[5000; 2]).next_step(LIMITS), 1, "whether there is a next page");
    }
}
