//! The cursor of the event list: the position after the last event of a page, signed so that clients cannot change it.
//!
//! Layout before base64: time in microseconds (8 bytes), event id (8), digest of the filters (16), HMAC-SHA256 of these
//! and the user id (16). A cursor is not secret and does not expire.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use pulse_store::{EventFilter, PageStart};
use sha2::{Digest, Sha256};

/// Bytes of position and filter digest.
const SIGNED_BYTES: usize = 32;
/// Bytes of position, filter digest and the first half of the HMAC.
const CURSOR_BYTES: usize = 48;

/// Why a cursor was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CursorError {
    /// Malformed, signed with another key, or issued to another user.
    #[error("the cursor is not valid: send next_cursor of an earlier response unchanged")]
    Invalid,
    /// Issued for a list with other filters.
    #[error("the cursor belongs to other filters: repeat the filters of the first page, or start without a cursor")]
    OtherFilters,
}

/// Signs and verifies cursors.
pub(crate) struct Cursors {
    hmac: Hmac<Sha256>,
}

impl Cursors {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self { hmac: Hmac::new_from_slice(key).expect("HMAC takes a key of any length") }
    }

    /// Returns the cursor after the event with this time and id.
    pub(crate) fn encode(&self, user_id: i64, filter: &EventFilter, time: DateTime<Utc>, id: i64) -> String {
        let mut bytes = [0; CURSOR_BYTES];
        bytes[..8].copy_from_slice(&time.timestamp_micros().to_be_bytes());
        bytes[8..16].copy_from_slice(&id.to_be_bytes());
        bytes[16..SIGNED_BYTES].copy_from_slice(&digest(filter));
        let signature = self.signed(user_id, &bytes[..SIGNED_BYTES]).finalize().into_bytes();
        bytes[SIGNED_BYTES..].copy_from_slice(&signature[..CURSOR_BYTES - SIGNED_BYTES]);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the start of the page after the cursor.
    pub(crate) fn decode(&self, user_id: i64, filter: &EventFilter, cursor: &str) -> Result<PageStart, CursorError> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| CursorError::Invalid)?;
        let (signed, signature) = bytes.split_at_checked(SIGNED_BYTES).ok_or(CursorError::Invalid)?;
        if signature.len() != CURSOR_BYTES - SIGNED_BYTES {
            return Err(CursorError::Invalid);
        }
        self.signed(user_id, signed).verify_truncated_left(signature).map_err(|_| CursorError::Invalid)?;
        if signed[16..] != digest(filter) {
            return Err(CursorError::OtherFilters);
        }
        let number = |range: std::ops::Range<usize>| {
            i64::from_be_bytes(signed[range].try_into().expect("a range of eight bytes"))
        };
        let time = DateTime::from_timestamp_micros(number(0..8)).ok_or(CursorError::Invalid)?;
        Ok(PageStart::After(time, number(8..16)))
    }

    fn signed(&self, user_id: i64, bytes: &[u8]) -> Hmac<Sha256> {
        self.hmac.clone().chain_update(user_id.to_be_bytes()).chain_update(bytes)
    }
}

/// Returns the first half of the SHA-256 of all filters. Each filter is hashed with its length, so that different
/// filters are different input.
fn digest(filter: &EventFilter) -> [u8; 16] {
    let EventFilter { event_type, event_name, source, session_id, processed, from, to } = filter;
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
        hash.update(length.to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    for text in [event_type, event_name, source, session_id] {
        part(text.as_deref().map(str::as_bytes));
    }
    part(processed.map(|processed| [u8::from(processed)]).as_ref().map(<[u8; 1]>::as_slice));
    for time in [from, to] {
        // PostgreSQL compares microseconds.
        part(time.map(|time| time.timestamp_micros().to_be_bytes()).as_ref().map(<[u8; 8]>::as_slice));
    }
    hash.finalize()[..16].try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> DateTime<Utc> {
        DateTime::from_timestamp_micros(1_766_053_800_123_456).expect("valid")
    }

    #[test]
    fn cursor_decodes_to_its_position() {
        let cursors = Cursors::new(&[7; 32]);
        let filter = EventFilter { source: Some("web".into()), from: Some(time()), ..EventFilter::default() };
        let cursor = cursors.encode(1, &filter, time(), 42);
        let start = cursors.decode(1, &filter, &cursor).expect("valid");
        assert!(matches!(start, PageStart::After(at, 42) if at == time()));
    }

    #[test]
    fn cursor_changed_at_any_character_is_rejected() {
        let cursors = Cursors::new(&[7; 32]);
        let filter = EventFilter::default();
        let cursor = cursors.encode(1, &filter, time(), 42);
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(cursors.decode(1, &filter, &changed).err(), Some(CursorError::Invalid), "{changed}");
        }
        for broken in ["", "AAAA", "%%%", &cursor[..60], &format!("{cursor}AAAA")] {
            assert_eq!(cursors.decode(1, &filter, broken).err(), Some(CursorError::Invalid), "{broken}");
        }
    }

    #[test]
    fn cursor_is_bound_to_user_key_and_filters() {
        let cursors = Cursors::new(&[7; 32]);
        let filter = EventFilter { event_name: Some("a".into()), ..EventFilter::default() };
        let cursor = cursors.encode(1, &filter, time(), 42);
        assert_eq!(cursors.decode(2, &filter, &cursor).err(), Some(CursorError::Invalid));
        assert_eq!(Cursors::new(&[8; 32]).decode(1, &filter, &cursor).err(), Some(CursorError::Invalid));
        let other = EventFilter { event_type: Some("a".into()), ..EventFilter::default() };
        assert_eq!(cursors.decode(1, &other, &cursor).err(), Some(CursorError::OtherFilters));
    }
}
