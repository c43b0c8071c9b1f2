//! The 202 of one event and of a batch.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::ErrorDocument;

/// The event is committed, and will be processed.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventAccepted {
    /// The event's id.
    #[schema(minimum = 1)]
    pub event_id: i64,
    /// The task that processes it.
    pub task_id: Uuid,
    pub status: Status,
    /// For a person.
    pub message: &'static str,
    /// What was changed in the event; absent if nothing was.
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

/// Where accepted events are on their way.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Committed, and told to a worker.
    Enqueued,
}

/// The events are committed, and will be processed.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchAccepted {
    /// How many events were stored.
    pub event_count: usize,
    /// Their ids, in the order of the request.
    pub event_ids: Vec<i64>,
    /// The one task that processes them all.
    pub task_id: Uuid,
    pub status: Status,
    /// For a person.
    pub message: String,
    /// What was changed in the events; absent if nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<WarningDocument>, required = false)]
    pub warnings: Vec<Value>,
    /// How many items were stored; only with `Prefer: handling=lenient`, like the two below.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub accepted: Option<usize>,
    /// How many were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rejected: Option<usize>,
    /// What became of each item, in the order of the request.
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

/// What became of one item of a batch.
#[derive(Serialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(crate) enum ItemResult {
    /// It is committed.
    Accepted {
        /// Which item, from 0.
        index: usize,
        /// Its id.
        event_id: i64,
    },
    /// It was refused.
    Rejected {
        /// Which item, from 0.
        index: usize,
        /// What is wrong with it.
        #[schema(value_type = Vec<ErrorDocument>)]
        errors: Vec<Value>,
    },
}

/// Something that was accepted, but not quite as it was sent.
#[derive(ToSchema)]
#[schema(as = Warning)]
#[expect(dead_code, reason = "describes pulse_core::Warning")]
pub(crate) struct WarningDocument {
    /// `unknown_field`, `nul_replaced` or `surrogate_replaced`; more may come.
    code: String,
    /// For a person.
    detail: String,
    /// Which item of a batch, from 0.
    #[schema(nullable = false)]
    index: Option<usize>,
}

/// What an answer says beside the ids. It is stored with the Idempotency-Key, so that a replay says the same.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Extras {
    /// What was changed in the events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Value>,
    /// Of a batch with lenient handling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lenient: Option<Lenient>,
}

/// Which items of a lenient batch were refused; the others have the ids, in order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lenient {
    /// How many items the batch had.
    pub items: usize,
    /// Index and errors of each bad item.
    pub rejected: Vec<(usize, Vec<Value>)>,
}

impl Lenient {
    /// The item_results on all items, in order.
    fn item_results(self, event_ids: &[i64]) -> Vec<ItemResult> {
        let (mut bad, mut ids) = (self.rejected.into_iter().peekable(), event_ids.iter());
        (0..self.items)
            .filter_map(|index| match bad.next_if(|(bad, _)| *bad == index) {
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
    fn a_lenient_batch_says_what_became_of_each_item() {
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
