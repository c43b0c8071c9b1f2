//! Settle: records the outcome of claimed tasks, guarded by the fencing token.
//!
//! A task is settled once: the statement that finds the fencing token of the claim moves the task and, in the same
//! transaction, applies the effects to its events. A worker whose lease expired finds no row and changes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Connection;
use uuid::Uuid;

use crate::connection::{DedicatedConnection, Store};
use crate::error::StoreError;
use crate::row_locks::locked;
use crate::settle_statements::statements;
use crate::settlement::Settlement;
use crate::totals::Totals;

/// Time between two settlements of few tasks whose durations are counted. Percentiles need no more.
const SAMPLE_PERIOD: Duration = Duration::from_millis(100);
/// Number of tasks from which durations are counted always: the costs are small beside those of the tasks.
const SAMPLED_TASKS: usize = 16;

/// Settles tasks on a dedicated connection.
pub struct Settler {
    connection: DedicatedConnection,
    writer: Arc<str>,
    /// Time of attempts that is not yet in the running totals.
    unreported: Duration,
    /// When durations were counted last.
    sampled: Option<Instant>,
}

impl Settler {
    /// `writer` is the name in the running totals, and must be unique.
    pub fn new(store: &Store, writer: String) -> Self {
        Self {
            connection: store.impatient_connection(),
            writer: writer.into(),
            unreported: Duration::ZERO,
            sampled: None,
        }
    }

    /// Settles `settlements`, one transaction per kind of outcome, until one fails. Returns the tasks that were settled,
    /// even if a later kind failed; a task whose lease was lost is not among them.
    ///
    /// `attempt_time` is the time that passed in the worker's attempts since the last call. The first transaction that
    /// commits adds it to the running totals.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if PostgreSQL refused an effect: split the unsettled rest, and try again.
    /// [`StoreError::Locked`] if another transaction has locked a row: settle the rest with
    /// [`Settler::settle_unlocked`].
    pub async fn settle<'a>(
        &mut self,
        settlements: impl IntoIterator<Item = &'a Settlement>,
        attempt_time: Duration,
    ) -> (Vec<Uuid>, Result<(), StoreError>) {
        self.unreported += attempt_time;
        let settlements: Vec<&Settlement> = settlements.into_iter().collect();
        let mut settled = Vec::new();
        let is_sample = self.is_sample(settlements.len());
        for statement in statements(&settlements) {
            let totals = self.totals(is_sample);
            match self.connection.run(async |connection| statement.run(connection, &totals).await).await {
                Ok(ids) => settled.extend(ids),
                Err(error) => return (settled, Err(error)),
            }
            self.unreported = Duration::ZERO;
        }
        (settled, Ok(()))
    }

    /// Settles those of `settlements` whose rows no other transaction has locked, in one transaction. Returns the tasks
    /// that were settled, and the locked ones.
    ///
    /// # Errors
    /// As [`Settler::settle`]; no task was settled.
    pub async fn settle_unlocked(
        &mut self,
        settlements: &[&Settlement],
        attempt_time: Duration,
    ) -> Result<(Vec<Uuid>, HashSet<Uuid>), StoreError> {
        self.unreported += attempt_time;
        let totals = self.totals(false);
        let result = self
            .connection
            .run(async |connection| {
                let mut transaction = connection.begin().await?;
                let locked = locked(&mut transaction, settlements).await?;
                let unlocked = settlements.iter().filter(|settlement| !locked.contains(&settlement.task_id)).copied();
                let unlocked: Vec<&Settlement> = unlocked.collect();
                let mut settled = Vec::new();
                let mut totals = totals;
                for statement in statements(&unlocked) {
                    settled.extend(statement.run(&mut transaction, &totals).await?);
                    totals.attempt_us = 0;
                }
                transaction.commit().await?;
                Ok((settled, locked))
            })
            .await?;
        self.unreported = Duration::ZERO;
        Ok(result)
    }

    /// Whether the durations of this many tasks are counted.
    fn is_sample(&mut self, tasks: usize) -> bool {
        let is_sample = tasks >= SAMPLED_TASKS || self.sampled.is_none_or(|at| at.elapsed() >= SAMPLE_PERIOD);
        if is_sample {
            self.sampled = Some(Instant::now());
        }
        is_sample
    }

    fn totals(&self, is_sample: bool) -> Totals {
        let attempt_us = i64::try_from(self.unreported.as_micros()).unwrap_or(i64::MAX);
        Totals { writer: self.writer.clone(), attempt_us, is_sample }
    }
}
