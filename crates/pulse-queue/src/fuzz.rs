//! Entry point of the fuzz target in `fuzz/`.

use redis::FromRedisValue;
use redis::streams::StreamReadReply;

use crate::consumer::parse;
use crate::keys::STREAMS;

/// Answers to `XREADGROUP`: any bytes of a Redis are deliveries, entries without a task id, or an error.
pub fn stream_entry(input: &[u8]) {
    let Ok(value) = redis::parse_redis_value(input) else { return };
    let Ok(reply) = StreamReadReply::from_redis_value(value) else { return };
    for entry in reply.keys.into_iter().flat_map(|key| key.ids) {
        let entry_id = entry.id.clone();
        let parsed = parse(STREAMS[0], entry);
        let delivered = parsed.map(|delivery| delivery.entry_id).unwrap_or_else(|entry_id| entry_id);
        assert_eq!(delivered.id, entry_id);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_the_fuzz_target_breaks_no_promise() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/stream_entry");
        let files: Vec<_> = std::fs::read_dir(folder).expect("a folder").collect();
        assert!(!files.is_empty());
        for file in files {
            super::stream_entry(&std::fs::read(file.expect("a file").path()).expect("is readable"));
        }
    }
}
