//! A page of tasks in any state.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::connection::Store;
use crate::console::page_filter::{PageFilter, Table};
use crate::console::task_query::TaskRow;
use crate::error::StoreError;
use crate::task_ids::{first_id_of, time_of};

/// Time after which a page begins no further step.
const SEARCH_TIME: Duration = Duration::from_millis(40);

/// Tasks, those that were accepted last first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaskPage {
    /// The tasks. A page may have none and still not be the last one: what it looked at does not match.
    pub tasks: Vec<TaskRow>,
    /// The id below which the next page begins; `None` on the last one.
    pub next: Option<Uuid>,
    /// Acceptance of the oldest task that this page looked at; `None` if it looked at all.
    pub searched_until: Option<DateTime<Utc>>,
}

impl Store {
    /// A page of at most `limit` tasks with ids below `below`. It looks at steps of 10,000 tasks of each table (1,000 with a
    /// condition on the event) until it is full or 40 ms are over, and the next page continues there.
    ///
    /// # Errors
    /// [`StoreError::StatementLimit`] after 5 s; [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn task_page(
        &self,
        filter: &PageFilter,
        below: Option<Uuid>,
        limit: usize,
    ) -> Result<TaskPage, StoreError> {
        let mut below = below.into_iter().chain(filter.until.map(first_id_of)).min().unwrap_or(Uuid::max());
        let started = Instant::now();
        let mut tasks = Vec::new();
        loop {
            let mut page = self.step(filter, below, limit - tasks.len()).await?;
            tasks.append(&mut page.tasks);
            match page.next {
                Some(next) if tasks.len() < limit && started.elapsed() < SEARCH_TIME => below = next,
                _ => return Ok(TaskPage { tasks, ..page }),
            }
        }
    }

    async fn step(&self, filter: &PageFilter, below: Uuid, limit: usize) -> Result<TaskPage, StoreError> {
        let mut tasks = Vec::new();
        let mut end = None;
        for table in [Table::Unsettled, Table::Dead, Table::Settled] {
            let states = filter.states_of(table);
            if states.is_empty() {
                continue;
            }
            let wanted = i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1;
            let rows = self.task_rows(table, filter, &states, below, wanted).await?;
            if rows.len() <= limit {
                end = end.max(self.walk_end(table, filter, below).await?);
            }
            tasks.extend(rows);
        }
        Ok(merge(tasks, end, limit))
    }
}

/// The page of these tasks, of which all with an id from `end` on are known.
fn merge(mut tasks: Vec<TaskRow>, end: Option<Uuid>, limit: usize) -> TaskPage {
    tasks.sort_unstable_by_key(|task| std::cmp::Reverse(task.id));
    tasks.retain(|task| end.is_none_or(|end| task.id >= end));
    if tasks.len() > limit {
        tasks.truncate(limit);
        let next = tasks.last().map(|task| task.id);
        return TaskPage { tasks, next, searched_until: next.and_then(time_of) };
    }
    TaskPage { tasks, next: end, searched_until: end.and_then(time_of) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: u128) -> TaskRow {
        TaskRow {
            id: Uuid::from_u128(id),
            kind: "process_event".into(),
            state: "dead".into(),
            user: None,
            event_name: None,
            events: 1,
            attempts: 1,
            max_attempts: None,
            created_at: DateTime::UNIX_EPOCH,
            next_run_at: None,
            settled_at: None,
            worker: None,
            reason: None,
            error: None,
        }
    }

    fn merged(ids: &[u128], end: Option<u128>) -> (Vec<u128>, Option<u128>) {
        let page = merge(ids.iter().map(|id| task(*id)).collect(), end.map(Uuid::from_u128), 3);
        (page.tasks.iter().map(|task| task.id.as_u128()).collect(), page.next.map(|id| id.as_u128()))
    }

    #[test]
    fn page_continues_below_its_last_task_or_where_a_walk_ended() {
        assert_eq!(merged(&[1, 9, 5], None), (vec![9, 5, 1], None));
        assert_eq!(merged(&[1, 9, 5, 7], None), (vec![9, 7, 5], Some(5)));
        assert_eq!(merged(&[1, 9, 5], Some(4)), (vec![9, 5], Some(4)), "another table may have tasks above 1");
        assert_eq!(merged(&[], Some(4)), (vec![], Some(4)));
    }
}
