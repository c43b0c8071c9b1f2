//! Counts the tasks that an act would move, before it moves them.

use std::time::{Duration, Instant};

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::statement::{in_dead_tasks, in_tasks, walking};
use crate::connection::Store;
use crate::error::StoreError;
use crate::tasks::TaskFilter;

/// Time after which a count begins no further step.
const TIME: Duration = Duration::from_millis(300);
/// Number of rows that a step looks at.
const WALK: i64 = 20_000;
/// The same if each row needs a look-up of its event.
const WALK_EVENTS: i64 = 2_000;

/// How many tasks match a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct MatchingTasks {
    /// Number of tasks.
    pub tasks: i64,
    /// Whether these are all: otherwise the count ended early, because it took too long.
    pub is_complete: bool,
}

struct Counted {
    matching: i64,
    last: Option<Uuid>,
}

macro_rules! count {
    ($table:tt, $filter:expr, $after:expr, $walk:expr) => {
        walking!(
            Counted,
            "WITH ",
            $table,
            [r#"SELECT count(*) FILTER (WHERE matches) AS "matching!",
                      CASE WHEN count(*) >= $6 THEN (SELECT id FROM walked ORDER BY id DESC LIMIT 1) END AS last
               FROM walked"#],
            $filter,
            $after,
            $walk,
        )
    };
}

impl Store {
    /// Counts the tasks that match the filter, for about 300 ms.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn count_tasks(&self, filter: &TaskFilter) -> Result<MatchingTasks, StoreError> {
        let filter = &self.with_children(filter).await?;
        let started = Instant::now();
        let walk = if filter.event_name.is_some() { WALK_EVENTS } else { WALK };
        let mut all = MatchingTasks { tasks: 0, is_complete: true };
        for is_dead in filter.tables() {
            let mut after = filter.start();
            loop {
                let counted = if is_dead {
                    in_dead_tasks!(count! filter, after, walk).fetch_one(&self.pool).await?
                } else {
                    in_tasks!(count! filter, after, walk).fetch_one(&self.pool).await?
                };
                all.tasks += counted.matching;
                match counted.last {
                    None => break,
                    Some(_) if started.elapsed() > TIME => return Ok(MatchingTasks { is_complete: false, ..all }),
                    Some(last) => after = last,
                }
            }
        }
        Ok(all)
    }
}
