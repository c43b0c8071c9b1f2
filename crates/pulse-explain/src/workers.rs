//! Which workers run, from their leases, their reads of Redis and their sessions in PostgreSQL.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use pulse_core::{READ_BLOCK, TASK_LEASE};

use crate::facts::Facts;

/// Remaining time of a lease below which a heartbeat was missed. A heartbeat comes every third of a lease, or after half
/// of that more if the claim was just before it.
const HEARTBEAT_MISSED: TimeDelta = TimeDelta::milliseconds(TASK_LEASE.as_millis() as i64 * 2 / 5);
/// Time without a read after which a worker that is not at its limit hangs.
const READ_MISSED_MS: u64 = READ_BLOCK.as_millis() as u64 * 5;

/// The condition of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It reads, claims or extends leases.
    Alive,
    /// It has sessions in PostgreSQL and does none of these.
    Stopped,
    /// It has no session.
    Gone,
}

/// The workers of the instance.
#[derive(Debug)]
pub(crate) struct Workers<'a> {
    pub(crate) alive: usize,
    pub(crate) stopped: Vec<&'a str>,
}

impl<'a> Workers<'a> {
    pub(crate) fn of(facts: &'a Facts) -> Self {
        let leased = facts.instance.leased.iter().map(|leased| leased.worker.as_str());
        let consumers = facts.queue.iter().flat_map(|queue| &queue.consumers);
        let names: BTreeSet<&str> = leased.chain(consumers.map(|consumer| consumer.worker.as_str())).collect();
        let with = |wanted| names.iter().copied().filter(move |name| condition(facts, name) == wanted);
        let is_worker = |session: &str| session.starts_with("pulse worker ") || session.starts_with("pulse dev ");
        // Without a lease and without a read: workers that have just started, or while Redis does not answer.
        let unnamed = facts
            .instance
            .sessions
            .iter()
            .filter(|session| is_worker(session) && !names.iter().any(|name| session.ends_with(start_id(name))));
        Self { alive: with(Condition::Alive).count() + unnamed.count(), stopped: with(Condition::Stopped).collect() }
    }
}

/// The condition of the worker `name`.
pub(crate) fn condition(facts: &Facts, name: &str) -> Condition {
    let sessions = &facts.instance.sessions;
    // This reading has a session too: if none is seen, a pooler hides them.
    let has_session = sessions.iter().any(|session| session.ends_with(start_id(name)));
    if !sessions.is_empty() && !has_session {
        return Condition::Gone;
    }
    let left = facts
        .instance
        .leased
        .iter()
        .find(|leased| leased.worker == name)
        .map(|leased| leased.lease_until - facts.now());
    let idle_ms = facts.queue.iter().flat_map(|queue| &queue.consumers).find(|consumer| consumer.worker == name);
    let extends = left.is_some_and(|left| left >= HEARTBEAT_MISSED);
    let reads = idle_ms.is_some_and(|consumer| consumer.idle_ms <= READ_MISSED_MS);
    let is_unknown = left.is_none() && idle_ms.is_none();
    match has_session {
        _ if extends || reads => Condition::Alive,
        true if is_unknown => Condition::Alive,
        true => Condition::Stopped,
        false => Condition::Gone,
    }
}

/// The part of a worker's name that its sessions have: `<host>.<start id>`.
fn start_id(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
