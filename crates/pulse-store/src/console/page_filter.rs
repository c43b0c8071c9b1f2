//! Conditions on the tasks of a page.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::task_ids::first_id_of;

/// The table of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Unsettled,
    Dead,
    Settled,
}

/// Maximum number of rows of each table that a page looks at.
const WALK: i64 = 10_000;
/// The same if each row needs a look-up of its event.
const WALK_EVENTS: i64 = 1_000;

/// Conditions on tasks, combined with AND.
#[derive(Debug, Clone, Default)]
pub struct PageFilter {
    /// Names of states: `pending`, `running`, `retrying`, `dead`, `completed`, `cancelled`, `orphaned`. Empty: every state.
    /// A batch of which some events failed is `completed` here.
    pub states: Vec<String>,
    /// Owner of the events.
    pub user_id: Option<i64>,
    /// Name of the first event.
    pub event_name: Option<String>,
    /// Reason of the last failed attempt.
    pub reason: Option<String>,
    /// Beginning of the error of the last failed attempt.
    pub error_prefix: Option<String>,
    /// The group of this error: see [`DeadGroup`](crate::console::DeadGroup).
    pub error_group: Option<String>,
    /// Accepted at or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Accepted before this time.
    pub until: Option<DateTime<Utc>>,
}

impl PageFilter {
    /// The number of rows of a table that a page looks at.
    pub(super) fn walk(&self) -> i64 {
        if self.event_name.is_some() { WALK_EVENTS } else { WALK }
    }

    /// The lowest id of a task that was accepted at or after `since`.
    pub(super) fn lowest_id(&self) -> Uuid {
        self.since.map_or(Uuid::nil(), first_id_of)
    }

    pub(super) fn states_of(&self, table: Table) -> Vec<&str> {
        let names: &[&str] = match table {
            Table::Unsettled => &["pending", "running", "retrying"],
            Table::Dead => &["dead"],
            Table::Settled => &["completed", "cancelled", "orphaned"],
        };
        let wanted = |name: &&str| self.states.is_empty() || self.states.iter().any(|state| state == name);
        names.iter().copied().filter(wanted).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_since_a_time_have_ids_from_its_first_one() {
        let time = DateTime::from_timestamp(1_700_000_000, 0).expect("valid");
        let filter = PageFilter { since: Some(time), ..PageFilter::default() };
        assert!(filter.lowest_id() < Uuid::now_v7() && filter.lowest_id() > Uuid::nil());
    }
}
