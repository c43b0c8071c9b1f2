//! Claim: leases tasks to a worker and reads their events.
//!
//! All times are PostgreSQL's. With `SKIP LOCKED`, two workers with the same delivery do not wait for each other.

use std::time::Duration;

use pulse_core::ClaimedTask;
use uuid::Uuid;

use crate::claimed::{Leased, Row, read_events};
use crate::connection::{DedicatedConnection, Store};
use crate::error::StoreError;
use crate::settle_statements::release;

/// Maximum number of users in one [`Claimer::claim_due`], as in `claim_due.sql`.
const OWNERS_PER_CLAIM: usize = 64;
/// An id above that of every user.
const ALL_USERS: i64 = i64::MAX;

/// Claims tasks on a dedicated connection.
///
/// A dedicated connection keeps its generic plans, which may be made while the statistics say that `tasks` is empty. All
/// indexes look equally cheap then, and a scan of the whole `tasks_run_at` or `tasks_pkey` takes seconds with a backlog.
/// Therefore each statement with ids says `id = ANY (…)`, also beside a join, and `run_at + interval '0'` hides the column
/// from its index (measured on PostgreSQL 15).
pub struct Claimer {
    connection: DedicatedConnection,
    worker: String,
    lease: Duration,
    /// [`Claimer::claim_due`] continues with the users below this one.
    last_user: i64,
}

/// The result of a claim.
#[derive(Debug, Default)]
pub struct Claim {
    /// The claimed tasks, with their events.
    pub tasks: Vec<ClaimedTask>,
    /// Tasks that are due and not claimed, because the claimed ones have enough bytes.
    pub left: Vec<Uuid>,
    /// Tasks that are due and not claimed, because a worker died while it had them: claim each with
    /// [`Claimer::claim_alone`].
    pub crashed: Vec<Uuid>,
    /// All claims are paused: the tasks are `left`, also those that crashed.
    pub paused: bool,
}

impl Claimer {
    /// `worker` is recorded with each claim; `lease` is the time that a claim lasts without a heartbeat.
    pub fn new(store: &Store, worker: String, lease: Duration) -> Self {
        Self { connection: store.dedicated_connection(), worker, lease, last_user: ALL_USERS }
    }

    /// Claims the tasks of `ids` that are due and not leased, until their events have `max_bytes` bytes together; at least
    /// one task, whatever its size. Leaves tasks that crashed.
    ///
    /// A task that is not in the result is settled, leased by another worker, due later, or locked: acknowledge its
    /// delivery.
    ///
    /// # Errors
    /// [`StoreError`]. The tasks may be leased nevertheless, until the lease expires.
    pub async fn claim(&mut self, ids: &[Uuid], max_bytes: usize) -> Result<Claim, StoreError> {
        self.claim_and_read(ids, max_bytes, false).await
    }

    /// Claims one task, also if it crashed.
    ///
    /// # Errors
    /// As [`Claimer::claim`].
    pub async fn claim_alone(&mut self, id: Uuid) -> Result<Claim, StoreError> {
        self.claim_and_read(&[id], 1, true).await
    }

    /// Claims about `limit` due tasks without ids from Redis: the fallback while Redis is unavailable. Users have equal
    /// shares, and each user's oldest tasks come first.
    ///
    /// # Errors
    /// As [`Claimer::claim`].
    pub async fn claim_due(&mut self, limit: usize, max_bytes: usize) -> Result<Claim, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        loop {
            let below = self.last_user;
            let due = self
                .connection
                .run(async |connection| {
                    Ok(sqlx::query_file!("src/claim_due.sql", below, limit).fetch_all(connection).await?)
                })
                .await?;
            let last = due.last().map_or(ALL_USERS, |owner| owner.user_id);
            self.last_user = if due.len() < OWNERS_PER_CLAIM { ALL_USERS } else { last };
            let ids: Vec<Uuid> = due.into_iter().flat_map(|owner| owner.ids).collect();
            if !ids.is_empty() {
                return self.claim(&ids, max_bytes).await;
            }
            // Users above the first one of this call may have due tasks.
            if below == ALL_USERS {
                return Ok(Claim::default());
            }
        }
    }

    /// The claim is committed before the events are read: if reading them kills the worker, the tasks count as crashed.
    async fn claim_and_read(&mut self, ids: &[Uuid], max_bytes: usize, alone: bool) -> Result<Claim, StoreError> {
        let (worker, lease) = (self.worker.as_str(), self.lease.as_secs_f64());
        let max_bytes = i64::try_from(max_bytes).unwrap_or(i64::MAX);
        let rows = self
            .connection
            .run(async |connection| {
                Ok(sqlx::query_file_as!(Row, "src/claim.sql", ids, worker, lease, max_bytes, alone)
                    .fetch_all(connection)
                    .await?)
            })
            .await?;
        let mut claim = Claim::default();
        let mut claimed = Vec::new();
        for row in rows {
            let (id, crashed) = (row.id, row.crashed);
            claim.paused |= row.paused;
            match row.claimed() {
                Some(task) => claimed.push(task),
                None if claim.paused => claim.left.push(id),
                None if crashed => claim.crashed.push(id),
                None => claim.left.push(id),
            }
        }
        if !claimed.is_empty() {
            claim.tasks = self.read_or_release(claimed).await?;
        }
        Ok(claim)
    }

    async fn read_or_release(&mut self, claimed: Vec<Leased>) -> Result<Vec<ClaimedTask>, StoreError> {
        let (ids, tokens): (Vec<Uuid>, Vec<i64>) = claimed.iter().map(|task| (task.id, task.fencing_token)).unzip();
        let delays = vec![0.0; ids.len()];
        let result = self.connection.run(async |connection| read_events(connection, claimed).await).await;
        if result.is_err() {
            // If this fails too, the leases expire.
            let _ = self.connection.run(async |connection| release(connection, &ids, &tokens, &delays).await).await;
        }
        result
    }
}

impl Store {
    /// Extends the leases of `in_flight`, pairs of task id and fencing token, to `lease` from now; returns the tasks whose
    /// lease was extended.
    ///
    /// Skips locked rows: a settlement locks the same rows in another order, which could deadlock.
    ///
    /// # Errors
    /// [`StoreError`]. The leases end at their present time.
    pub async fn extend_leases(&self, in_flight: &[(Uuid, i64)], lease: Duration) -> Result<Vec<Uuid>, StoreError> {
        let (ids, fencing_tokens): (Vec<Uuid>, Vec<i64>) = in_flight.iter().copied().unzip();
        let mut connection = self.probe_connection().await?;
        let extended = sqlx::query_scalar!(
            "WITH extendable AS (
                 SELECT tasks.id FROM tasks JOIN unnest($1::uuid[], $2::bigint[]) AS in_flight (id, fencing_token)
                                      ON tasks.id = in_flight.id AND tasks.fencing_token = in_flight.fencing_token
                 WHERE tasks.id = ANY ($1) AND tasks.lease_until IS NOT NULL
                 FOR UPDATE OF tasks SKIP LOCKED
             )
             UPDATE tasks SET lease_until = now() + make_interval(secs => $3)
             WHERE tasks.id = ANY (ARRAY(SELECT id FROM extendable))
             RETURNING tasks.id",
            &ids,
            &fencing_tokens,
            lease.as_secs_f64(),
        )
        .fetch_all(&mut *connection)
        .await?;
        Ok(extended)
    }
}
