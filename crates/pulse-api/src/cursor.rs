//! The cursor of the event list: the position at which a page ends, and a digest of the filters.
//!
//! Layout before base64: time in microseconds (8 bytes), event id (8), digest of the filters (16). A cursor is neither
//! secret nor signed, because it cannot show more than the filters allow: the list is always that of the token's user.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::DateTime;
use pulse_store::{EventFilter, PageStart, Position};
use sha2::{Digest, Sha256};

const CURSOR_BYTES: usize = 32;

/// Why a cursor was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CursorError {
    /// Malformed, or not a time of an event.
    #[error("the cursor is not valid: send next_cursor of an earlier response unchanged")]
    Invalid,
    /// Issued for a list with other filters.
    #[error("the cursor belongs to other filters: repeat the filters of the first page, or start without a cursor")]
    OtherFilters,
}

/// Returns the cursor after this position.
pub(crate) fn encode(filter: &EventFilter, Position { time, id }: Position) -> String {
    let mut bytes = [0; CURSOR_BYTES];
    bytes[..8].copy_from_slice(&time.timestamp_micros().to_be_bytes());
    bytes[8..16].copy_from_slice(&id.to_be_bytes());
    bytes[16..].copy_from_slice(&digest(filter));
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the start of the page after the cursor.
pub(crate) fn decode(filter: &EventFilter, cursor: &str) -> Result<PageStart, CursorError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| CursorError::Invalid)?;
    let bytes: [u8; CURSOR_BYTES] = bytes.try_into().map_err(|_| CursorError::Invalid)?;
    let number = |start: usize| i64::from_be_bytes(std::array::from_fn(|at| bytes[start + at]));
    // PostgreSQL has no times as early as chrono has.
    let micros = Some(number(0)).filter(|micros| *micros >= 0).ok_or(CursorError::Invalid)?;
    let time = DateTime::from_timestamp_micros(micros).ok_or(CursorError::Invalid)?;
    if bytes[16..] != digest(filter) {
        return Err(CursorError::OtherFilters);
    }
    Ok(PageStart::After(Position { time, id: number(8) }))
}

/// Returns the first half of the SHA-256 of all filters. Each filter is hashed with its length, so that different
/// filters are different input.
fn digest(filter: &EventFilter) -> [u8; 16] {
    let EventFilter { texts, processed, from, to, event_from, event_to } = filter;
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
        hash.update(length.to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    for (name, text) in texts {
        part(Some(name.as_bytes()));
        part(Some(text.as_bytes()));
    }
    // Ends the texts.
    part(None);
    part(processed.map(|processed| [u8::from(processed)]).as_ref().map(<[u8; 1]>::as_slice));
    for time in [from, to, event_from, event_to] {
        // PostgreSQL compares microseconds.
        part(time.map(|time| time.timestamp_micros().to_be_bytes()).as_ref().map(<[u8; 8]>::as_slice));
    }
    hash.finalize()[..16].try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::Utc;

    use super::*;

    fn time() -> DateTime<Utc> {
        DateTime::from_timestamp_micros(1_766_053_800_123_456).expect("valid")
    }

    fn position() -> Position {
        Position { time: time(), id: 42 }
    }

    fn text(name: &'static str, text: &str) -> EventFilter {
        EventFilter { texts: BTreeMap::from([(name, text.to_owned())]), ..EventFilter::default() }
    }

    #[test]
    fn cursor_decodes_to_its_position() {
        let filter = EventFilter { from: Some(time()), ..text("source", "web") };
        let start = decode(&filter, &encode(&filter, position())).expect("valid");
        assert!(matches!(start, PageStart::After(at) if at == position()));
    }

    #[test]
    fn cursor_of_another_length_or_with_an_impossible_time_is_rejected() {
        let filter = EventFilter::default();
        let cursor = encode(&filter, position());
        for broken in ["", "AAAA", "%%%", &cursor[..40], &format!("{cursor}AAAA")] {
            assert_eq!(decode(&filter, broken).err(), Some(CursorError::Invalid), "{broken}");
        }
        for micros in [i64::MIN, -1, i64::MAX] {
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&cursor).expect("base64");
            bytes[..8].copy_from_slice(&micros.to_be_bytes());
            let cursor = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            assert_eq!(decode(&filter, &cursor).err(), Some(CursorError::Invalid), "{micros}");
        }
    }

    #[test]
    fn cursor_is_bound_to_its_filters() {
        let cursor = encode(&text("event_name", "a"), position());
        let processed = EventFilter { processed: Some(true), ..text("event_name", "a") };
        let happened = EventFilter { event_from: Some(time()), ..text("event_name", "a") };
        for other in [EventFilter::default(), text("event_type", "a"), text("event_name", "b"), processed, happened] {
            assert_eq!(decode(&other, &cursor).err(), Some(CursorError::OtherFilters), "{other:?}");
        }
    }
}
