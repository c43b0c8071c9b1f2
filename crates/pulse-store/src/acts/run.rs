//! An act from its beginning to its end.

use uuid::Uuid;

use super::register::ActOutcome;
use super::step::{Bounds, Step};
use crate::audit::Act;
use crate::connection::Store;
use crate::error::StoreError;
use crate::tasks::TaskFilter;

/// Maximum number of tasks in one transaction.
const STEP: i64 = 1000;

/// What an act does with tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskAction {
    /// Makes dead tasks pending again, with all attempts.
    Retry,
    /// Moves unsettled and dead tasks to `task_history`. Their events stay unprocessed.
    Cancel,
}

impl TaskAction {
    /// The action in the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "tasks.retry",
            Self::Cancel => "tasks.cancel",
        }
    }
}

/// What became of the selected tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MovedTasks {
    /// Tasks that were cancelled or retried.
    pub moved: u64,
    /// Tasks that were not, because another transaction had locked them or had just changed them.
    pub busy: u64,
}

/// A running act. It ends with [`ActRun::end`], or is ended by the scheduler once its process is gone.
pub struct ActRun {
    store: Store,
    act: Uuid,
    action: TaskAction,
    filter: TaskFilter,
    /// The tables that are left, the present one last: whether it is `dead_tasks`.
    tables: Vec<bool>,
    after: Uuid,
    /// How many tasks may still be selected.
    left: i64,
    all: MovedTasks,
    is_stopped: bool,
}

impl Store {
    /// Begins an act on at most `limit` tasks: unsettled ones first, each oldest first. Moves nothing yet; `None` if too
    /// many acts run. `matching` is the number of tasks that matched before, and `rate` the limit in tasks per second, both
    /// for those who look at the act.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer.
    pub async fn begin_act(
        &self,
        action: TaskAction,
        filter: &TaskFilter,
        limit: i64,
        (matching, rate): (Option<i64>, Option<i32>),
        act: &Act,
    ) -> Result<Option<ActRun>, StoreError> {
        let target = filter.to_string();
        let filter = self.with_children(filter).await?;
        if !self.register_act(action.as_str(), &target, (matching, rate), act).await? {
            return Ok(None);
        }
        let mut tables = filter.tables();
        tables.retain(|is_dead| *is_dead || action == TaskAction::Cancel);
        tables.reverse();
        let (after, all) = (filter.start(), MovedTasks::default());
        let store = self.clone();
        Ok(Some(ActRun { store, act: act.id, action, filter, tables, after, left: limit, all, is_stopped: false }))
    }

    /// Runs an act to its end.
    ///
    /// # Errors
    /// [`StoreError`]. The tasks of earlier transactions are moved: running it again continues.
    pub async fn act_on_tasks(
        &self,
        action: TaskAction,
        filter: &TaskFilter,
        limit: i64,
        act: &Act,
    ) -> Result<Option<MovedTasks>, StoreError> {
        let Some(mut run) = self.begin_act(action, filter, limit, (None, None), act).await? else {
            return Ok(None);
        };
        let result = loop {
            match run.step(STEP).await {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let moved = run.end(if result.is_ok() { ActOutcome::Completed } else { ActOutcome::Failed }).await?;
        result.map(|()| Some(moved))
    }
}

impl ActRun {
    /// The id of the act.
    pub fn id(&self) -> Uuid {
        self.act
    }

    /// Moves at most `size` tasks, and never more than 1,000, in one transaction; returns how many were selected, or `None`
    /// after the last one and once the act was stopped.
    ///
    /// # Errors
    /// [`StoreError`]: nothing was moved, or the outcome is unknown. The next step begins at the same place, and a task never
    /// moves twice.
    pub async fn step(&mut self, size: i64) -> Result<Option<u64>, StoreError> {
        let limit = size.clamp(1, STEP).min(self.left);
        let Some(is_dead) = self.tables.last().copied().filter(|_| limit > 0) else { return Ok(None) };
        let bounds = Bounds { act: self.act, after: self.after, limit };
        let Step { going, selected, moved, last } = match (self.action, is_dead) {
            (TaskAction::Retry, _) => self.store.retry_step(&self.filter, bounds).await?,
            (TaskAction::Cancel, true) => self.store.discard_step(&self.filter, bounds).await?,
            (TaskAction::Cancel, false) => self.store.cancel_step(&self.filter, bounds).await?,
        };
        if !going {
            self.is_stopped = true;
            return Ok(None);
        }
        self.left -= selected;
        self.all.moved += moved.unsigned_abs();
        self.all.busy += (selected - moved).unsigned_abs();
        match last {
            Some(last) => self.after = last,
            None => {
                self.tables.pop();
                self.after = self.filter.start();
            }
        }
        Ok(Some(selected.unsigned_abs()))
    }

    /// Ends the act: its row moves to the audit log. An act that was stopped has that outcome.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if PostgreSQL does not answer: the scheduler ends it later.
    pub async fn end(self, outcome: ActOutcome) -> Result<MovedTasks, StoreError> {
        let outcome = if self.is_stopped { ActOutcome::Stopped } else { outcome };
        self.store.end_act(self.act, outcome).await?;
        Ok(self.all)
    }
}
