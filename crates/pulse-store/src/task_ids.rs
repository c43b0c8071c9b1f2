//! The ids of tasks are UUIDv7, so that their order is that of acceptance.

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// The first id of a time.
pub(crate) fn first_id_of(time: DateTime<Utc>) -> Uuid {
    Uuid::from_u128(u128::from(time.timestamp_millis().max(0).unsigned_abs()) << 80)
}

/// The time in an id.
pub(crate) fn time_of(id: Uuid) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(i64::try_from(id.as_u128() >> 80).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_ranges_of_ids() {
        let time = DateTime::from_timestamp(1_700_000_000, 0).expect("valid");
        assert_eq!(time_of(first_id_of(time)), Some(time));
    }
}
