//! The 202 responses for one event and for a batch.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use pulse_http::ErrorDocument;

/// The event and its task are committed.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventAccepted {
    /// Id of the event.
    #[schema(minimum = 1)]
    pub event_id: i64,
    /// Id of the task that processes the event.
    pub task_id: Uuid,
    pub status: Status,
    /// Human-readable message.
    pub message: &'static str,
    /// Differences between the sent and the stored event; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<WarningDocument>, required = false)]
    pub warnings: Vec<Value>,
}

impl EventAccepted {
    pub(crate) fn new(task_id: Uuid, event_id: i64, extras: Extras) -> Self {
        let Extras { warnings, lenient: _ } = extras;
        Self { event_id, task_id, status: Status::Enqueued, message: "Event enqueued for processing", warnings }
    }
}

/// Constant, kept for compatibility with existing clients. It means that the events and their task are committed, not
/// that a worker was notified. Read the task for its state.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Committed.
    Enqueued,
}

/// The events and their task are committed.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchAccepted {
    /// Number of events stored.
    pub event_count: usize,
    /// Ids of the stored events, in the order of the request.
    pub event_ids: Vec<i64>,
    /// Id of the task that processes all events.
    pub task_id: Uuid,
    pub status: Status,
    /// Human-readable message.
    pub message: String,
    /// Differences between the sent and the stored events; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<WarningDocument>, required = false)]
    pub warnings: Vec<Value>,
    /// Number of items accepted. Only with `Prefer: handling=lenient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub accepted: Option<usize>,
    /// Number of items rejected. Only with `Prefer: handling=lenient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rejected: Option<usize>,
    /// Result of each item, in the order of the request. Only with `Prefer: handling=lenient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub results: Option<Vec<ItemResult>>,
}

impl BatchAccepted {
    pub(crate) fn new(task_id: Uuid, event_ids: Vec<i64>, extras: Extras) -> Self {
        let Extras { warnings, lenient } = extras;
        let rejected = lenient.as_ref().map(|lenient| lenient.rejected.len());
        Self {
            event_count: event_ids.len(),
            task_id,
            status: Status::Enqueued,
            message: format!("Batch of {} events enqueued for processing", event_ids.len()),
            warnings,
            accepted: lenient.is_some().then_some(event_ids.len()),
            rejected,
            results: lenient.map(|lenient| lenient.item_results(&event_ids)),
            event_ids,
        }
    }
}

/// Result of one item of a batch.
#[derive(Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum ItemResult {
    /// The event is committed.
    Accepted {
        /// Index of the item, from 0.
        index: usize,
        /// Id of the event.
        event_id: i64,
    },
    /// The item is invalid and was not stored.
    Rejected {
        /// Index of the item, from 0.
        index: usize,
        /// All errors of the item.
        #[schema(value_type = Vec<ErrorDocument>)]
        errors: Vec<Value>,
    },
}

/// A difference between what was sent and what was accepted.
#[derive(ToSchema)]
#[schema(as = Warning)]
#[expect(dead_code, reason = "describes pulse_core::Warning")]
pub(crate) struct WarningDocument {
    /// `unknown_field`, `invalid_ip_address`, `empty_timestamp`, `differing_timestamp`, `nul_replaced` or
    /// `surrogate_replaced`; more codes may be added.
    code: String,
    /// Human-readable message.
    detail: String,
    /// Name of the field; absent if the warning is about the whole body.
    #[schema(nullable = false)]
    field: Option<String>,
    /// Index of the item in a batch, from 0; absent if the warning is about the whole body.
    #[schema(nullable = false)]
    index: Option<usize>,
}

/// The parts of a response besides the ids. They are stored with the Idempotency-Key, so that a replay repeats them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Extras {
    /// Warnings about the events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Value>,
    /// Only for a batch with lenient handling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lenient: Option<Lenient>,
}

/// The rejected items of a batch with lenient handling. The event ids belong to the other items, in order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lenient {
    /// Number of items in the request.
    pub items: usize,
    /// Index and errors of each rejected item.
    pub rejected: Vec<(usize, Vec<Value>)>,
}

impl Lenient {
    /// Returns the results of all items, in the order of the request.
    fn item_results(self, event_ids: &[i64]) -> Vec<ItemResult> {
        let (mut rejected, mut ids) = (self.rejected.into_iter().peekable(), event_ids.iter());
        (0..self.items)
            .filter_map(|index| match rejected.next_if(|(rejected, _)| *rejected == index) {
                Some((index, errors)) => Some(ItemResult::Rejected { index, errors }),
                None => ids.next().map(|&event_id| ItemResult::Accepted { index, event_id }),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lenient_batch_has_a_result_for_each_item() {
        let lenient = Lenient { items: 3, rejected: vec![(1, vec![json!({"type": "missing"})])] };
        let stored = serde_json::to_value(&lenient).expect("serialises");
        let lenient: Lenient = serde_json::from_value(stored).expect("parses again");
        let extras = Extras { warnings: Vec::new(), lenient: Some(lenient) };
        let answer = BatchAccepted::new(Uuid::nil(), vec![7, 8], extras);
        assert_eq!(
            serde_json::to_value(&answer).expect("serialises"),
            json!({
                "event_count": 2, "event_ids": [7, 8], "task_id": Uuid::nil(), "status": "enqueued",
                "message": "Batch of 2 events enqueued for processing",
                "accepted": 2, "rejected": 1, "results": [
                    {"index": 0, "status": "accepted", "event_id": 7},
                    {"index": 1, "status": "rejected", "errors": [{"type": "missing"}]},
                    {"index": 2, "status": "accepted", "event_id": 8},
                ],
            })
        );
    }
}
