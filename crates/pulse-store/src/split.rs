//! Split: completes a batch, and gives each of its events without a result a task, with one statement.

use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::error::StoreError;
use crate::settle_columns::EffectColumns;
use crate::settlement::{Child, ChildState, Effect, Settlement};
use crate::totals::Totals;
use pulse_core::Attempt;

/// Columns of batches to split, of the effects on their events, and of the new tasks.
#[derive(Default)]
pub(crate) struct SplitColumns<'a> {
    pub(crate) task_id: Vec<Uuid>,
    fencing_token: Vec<i64>,
    attempt_seconds: Vec<f64>,
    effects: EffectColumns<'a>,
    parent_id: Vec<Uuid>,
    child_id: Vec<Uuid>,
    event_id: Vec<i64>,
    bytes: Vec<i64>,
    delay: Vec<f64>,
    attempt: Vec<Option<Json<&'a Attempt>>>,
    is_dead: Vec<bool>,
    is_crashed: Vec<bool>,
}

impl<'a> SplitColumns<'a> {
    pub(crate) fn push(&mut self, settlement: &Settlement, effects: &'a [Effect], children: &'a [Child]) {
        self.task_id.push(settlement.task_id);
        self.fencing_token.push(settlement.fencing_token);
        self.attempt_seconds.extend(settlement.attempt_seconds());
        self.effects.push(settlement, effects);
        for Child { id, event_id, bytes, state } in children {
            let (delay, attempt) = match state {
                ChildState::Pending | ChildState::Crashed => (0.0, None),
                ChildState::Retry { delay, attempt } => (delay.as_secs_f64(), Some(Json(attempt))),
                ChildState::Dead(attempt) => (0.0, Some(Json(attempt))),
            };
            self.parent_id.push(settlement.task_id);
            self.child_id.push(*id);
            self.event_id.push(*event_id);
            self.bytes.push(i64::try_from(*bytes).unwrap_or(i64::MAX));
            self.delay.push(delay);
            self.attempt.push(attempt);
            self.is_dead.push(matches!(state, ChildState::Dead(_)));
            self.is_crashed.push(matches!(state, ChildState::Crashed));
        }
    }
}

/// Splits batches; returns those whose lease was not lost.
pub(crate) async fn split(
    connection: &mut PgConnection,
    columns: &SplitColumns<'_>,
    totals: &Totals,
) -> Result<Vec<Uuid>, StoreError> {
    let rows = sqlx::query_file_scalar!(
        "src/split.sql",
        &*totals.writer,
        totals.attempt_us,
        totals.is_sample.then_some(&columns.attempt_seconds[..]),
        &columns.task_id,
        &columns.fencing_token,
        &columns.effects.task_id,
        &columns.effects.event_id,
        &columns.effects.created_at,
        &columns.effects.properties as &[&str],
        &columns.parent_id,
        &columns.child_id,
        &columns.event_id,
        &columns.bytes,
        &columns.delay,
        &columns.attempt as &[Option<Json<&Attempt>>],
        &columns.is_dead,
        &columns.is_crashed,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
