//! Entry points of the fuzz targets in `fuzz/`: each takes any bytes and panics if a promise is broken.

use pulse_core::Limits;

use crate::body::{parse_batch, parse_single};
use crate::cursor;
use crate::prefer::Handling;
use crate::query::ListParams;

const LIMITS: Limits = Limits { event_bytes: 32 * 1024, depth: 32 };
const HANDLINGS: [Handling; 3] = [Handling::Default, Handling::Strict, Handling::Lenient];

/// Bodies: what is accepted is within the limits, and is accepted again.
pub fn body(input: &[u8]) {
    for handling in HANDLINGS {
        let single = parse_single(input, &LIMITS, handling);
        let batch = parse_batch(input, &LIMITS, 100, handling);
        let events = single.into_iter().map(|(event, _)| event).chain(batch.into_iter().flat_map(|batch| batch.events));
        for event in events {
            assert!(event.payload.len() <= LIMITS.event_bytes && event.stored_bytes <= LIMITS.stored_bytes());
            assert!(event.payload.trim_start().starts_with('{') && !event.payload.contains('\0'));
            let again = format!(r#"{{"event_name":"a","event_type":"b","payload":{}}}"#, event.payload);
            let roomy = Limits { event_bytes: LIMITS.event_bytes + 100, ..LIMITS };
            assert!(parse_single(again.as_bytes(), &roomy, handling).is_ok(), "{again}");
        }
    }
}

/// Queries: the query of the next page means the same.
pub fn query(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(params) = ListParams::parse(text) else { return };
    let next = params.next_query("cursor");
    let again = ListParams::parse(&next).unwrap_or_else(|errors| panic!("{next}: {errors:?}"));
    let filters = |params| ListParams { limit: None, offset: None, cursor: None, ..params };
    assert_eq!(filters(again), filters(params));
}

/// Cursors: one that is accepted has one spelling.
pub fn cursor(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let filter = ListParams::default().filter();
    if let Ok(pulse_store::PageStart::After(position)) = cursor::decode(&filter, text) {
        assert_eq!(cursor::encode(&filter, position), text);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_the_fuzz_targets_breaks_no_promise() {
        for (name, target) in [("body", super::body as fn(&[u8])), ("query", super::query), ("cursor", super::cursor)] {
            let folder = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let files: Vec<_> = std::fs::read_dir(folder).expect("a folder").collect();
            assert!(!files.is_empty(), "{name}");
            for file in files {
                target(&std::fs::read(file.expect("a file").path()).expect("is readable"));
            }
        }
    }
}
