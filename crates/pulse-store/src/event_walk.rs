//! A step through a user's events: reads a bounded number of them, whether they match a filter or not.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde_json::value::RawValue;
use sqlx::types::Json;

use crate::connection::Store;
use crate::error::StoreError;
use crate::events::{EventFilter, Position, StoredEvent, stored_event};

/// What a step reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Starts after this position; `None` is the newest event.
    pub after: Option<Position>,
    /// Skips this many events that match.
    pub offset: i64,
    /// Maximum number of events to read.
    pub walk: i64,
    /// Maximum number of events to return.
    pub limit: i64,
}

/// An event that matches, or the last one of a step that is not at the end of the list.
pub(crate) struct Walked {
    pub event: StoredEvent,
    pub matches: bool,
    /// Number of events that the step has read, with this one.
    pub read: i64,
    /// Number of those that match.
    pub matched: i64,
}

impl Store {
    /// Reads events of the user, newest first. Returns those that match, and the last one of `step.walk`.
    pub(crate) fn walk_events<'a>(
        &'a self,
        user_id: i64,
        filter: &EventFilter,
        step: Step,
    ) -> BoxStream<'a, Result<Walked, StoreError>> {
        let EventFilter { texts, processed, from, to, event_from, event_to } = filter;
        let text = |name| texts.get(name).map(String::as_str);
        sqlx::query!(
            r#"SELECT id, user_id, event_name, event_type, source, session_id, payload AS "payload: Json<Box<RawValue>>",
                    properties AS "properties: Json<Box<RawValue>>", ip_address, user_agent,
                    event_timestamp, created_at, processed, processed_at, processing_error, task_id,
                    matches AS "matches!", read AS "read!", matched AS "matched!"
             FROM (
                 SELECT *, row_number() OVER newest AS read, count(*) FILTER (WHERE matches) OVER newest AS matched
                 FROM (
                     SELECT *, (($2::text IS NULL OR event_type = $2)
                                AND ($3::text IS NULL OR event_name = $3)
                                AND ($4::text IS NULL OR source = $4)
                                AND ($5::text IS NULL OR session_id = $5)
                                AND ($6::bool IS NULL OR processed = $6)
                                AND ($7::timestamptz IS NULL OR event_timestamp >= $7)
                                AND ($8::timestamptz IS NULL OR event_timestamp < $8)) IS TRUE AS matches
                     FROM events
                     WHERE user_id = $1
                       AND ($9::timestamptz IS NULL OR created_at >= $9)
                       AND ($10::timestamptz IS NULL OR created_at < $10)
                       AND ($11::timestamptz IS NULL OR (created_at, id) < ($11, $12::bigint))
                     ORDER BY created_at DESC, id DESC LIMIT $13
                 ) AS walked
                 WINDOW newest AS (ORDER BY created_at DESC, id DESC ROWS UNBOUNDED PRECEDING)
             ) AS counted
             WHERE (matches AND matched > $14) OR read = $13
             ORDER BY created_at DESC, id DESC LIMIT $15"#,
            user_id,
            text("event_type"),
            text("event_name"),
            text("source"),
            text("session_id"),
            *processed,
            *event_from,
            *event_to,
            *from,
            *to,
            step.after.map(|position| position.time),
            step.after.map(|position| position.id),
            step.walk,
            step.offset,
            step.limit,
        )
        .fetch(&self.pool)
        .map(|row| {
            let row = row?;
            let (matches, read, matched) = (row.matches, row.read, row.matched);
            Ok(Walked { event: stored_event!(row), matches, read, matched })
        })
        .boxed()
    }
}
