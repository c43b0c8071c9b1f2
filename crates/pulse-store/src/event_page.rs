//! A page of a user's events, bounded in events and in bytes.

use futures_util::TryStreamExt;

use crate::connection::Store;
use crate::error::StoreError;
use crate::events::{EventFilter, PageStart, StoredEvent};

/// Maximum number of events that the first statement of a page reads: enough for a page of the default size, and few
/// enough not to be many megabytes.
const FIRST_STEP: i64 = 51;
/// Size of an event without its variable fields, in bytes of JSON.
const FIXED_BYTES: usize = 400;

/// A page of events.
#[derive(Debug, Default)]
pub struct EventPage {
    /// The events, newest first.
    pub events: Vec<StoredEvent>,
    /// Whether there are events after these.
    pub has_more: bool,
    /// Size of the events.
    bytes: usize,
}

/// Limits of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// Maximum number of events.
    pub events: i64,
    /// Size from which a page is complete, in bytes of JSON. A page always has an event, however large.
    pub bytes: usize,
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
            self.has_more = true;
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
    /// Reads the page in steps, each of about as many events as fit, so that large events are not read in vain.
    ///
    /// # Errors
    /// [`StoreError::StatementLimit`] after 5 s; [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn list_events(
        &self,
        user_id: i64,
        filter: &EventFilter,
        mut start: PageStart,
        limits: PageLimits,
    ) -> Result<EventPage, StoreError> {
        let mut page = EventPage::default();
        loop {
            let step = page.next_step(limits);
            let mut found = 0;
            let mut events = self.read_events(user_id, filter, start, step);
            while let Some(event) = events.try_next().await? {
                found += 1;
                page.add(event, limits);
                if page.has_more {
                    return Ok(page);
                }
            }
            match page.events.last() {
                Some(last) if found == step => start = PageStart::After(last.created_at, last.id),
                _ => return Ok(page),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use pulse_core::TextFields;
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;

    const LIMITS: PageLimits = PageLimits { events: 100, bytes: 10_000 };

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
        assert_eq!((full.events.len(), full.has_more), (2, false));
        let more = page(&[5000, 5000, 500]);
        assert_eq!((more.events.len(), more.has_more), (2, true));
        let many = page(&[500; 30]);
        assert_eq!((many.events.len(), many.has_more), (20, true));
    }

    #[test]
    fn page_has_an_event_even_if_it_is_larger_than_the_page() {
        let large = page(&[20_000]);
        assert_eq!((large.events.len(), large.has_more), (1, false));
        assert_eq!((page(&[20_000, 500]).events.len(), page(&[20_000, 500]).has_more), (1, true));
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
