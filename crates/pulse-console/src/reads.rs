//! What pages and JSON show, and to whom.

use pulse_store::console::{
    DeadGroup, DeadOrder, EventTail, Hit, QueueView, Range, Schedules, Series, TailFilter, TaskDetail, TaskPage,
};
use pulse_store::{ActStatus, AuditRow};
use std::sync::Arc;
use uuid::Uuid;

use crate::console::Console;
use crate::error::PageError;
use crate::filter;
use crate::frame::Figures;
use crate::identity::Identity;

/// Maximum length of a searched id, in bytes.
const MAX_ID: usize = 1024;

/// The figures of the last second; all that ask share them.
pub(crate) fn figures(console: &Console, identity: &Identity) -> Result<Arc<Figures>, PageError> {
    identity.require_admin()?;
    console.live.frame().figures.clone().ok_or(PageError::NoFigures)
}

pub(crate) async fn series(console: &Console, identity: &Identity, range: Range) -> Result<Series, PageError> {
    identity.require_admin()?;
    Ok(console.store.series(range).await?)
}

/// A page of tasks, and what is wrong with the filter.
pub(crate) async fn tasks(
    console: &Console,
    identity: &Identity,
    text: &str,
    below: Option<Uuid>,
    limit: usize,
) -> Result<(TaskPage, Vec<String>), PageError> {
    let filter = filter::read(console, identity, text).await?;
    let mut page = console.store.task_page(&filter.conditions, below, limit).await?;
    if !identity.is_admin {
        page.tasks.iter_mut().for_each(|task| task.worker = None);
    }
    Ok((page, filter.problems))
}

/// A task. Workers, and how many tasks fail like it, are nothing that one user can see.
pub(crate) async fn task(console: &Console, identity: &Identity, id: Uuid) -> Result<TaskDetail, PageError> {
    let mut detail = console.store.task_detail(identity.user_id, id).await?.ok_or(PageError::NotFound)?;
    if !identity.is_admin {
        (detail.worker, detail.task.worker, detail.same_error) = (None, None, None);
    }
    Ok(detail)
}

/// The tasks with this id of an event, task, request or trace.
pub(crate) async fn search(console: &Console, identity: &Identity, id: &str) -> Result<Vec<Hit>, PageError> {
    if id.trim().is_empty() || id.len() > MAX_ID || id.contains('\0') {
        return Err(PageError::NotFound);
    }
    Ok(console.store.search(id, identity.user_id).await?)
}

pub(crate) async fn dead_groups(
    console: &Console,
    identity: &Identity,
    order: DeadOrder,
    limit: i64,
) -> Result<Vec<DeadGroup>, PageError> {
    identity.require_admin()?;
    Ok(console.store.dead_groups(order, limit).await?)
}

pub(crate) async fn events(
    console: &Console,
    identity: &Identity,
    filter: TailFilter,
    below: Option<i64>,
    limit: i64,
) -> Result<EventTail, PageError> {
    let filter = TailFilter { user_id: identity.user_id.or(filter.user_id), ..filter };
    Ok(console.store.event_tail(&filter, below, limit).await?)
}

pub(crate) async fn schedules(console: &Console, identity: &Identity) -> Result<Schedules, PageError> {
    identity.require_admin()?;
    Ok(console.store.schedules().await?)
}

pub(crate) async fn queue(console: &Console, identity: &Identity) -> Result<QueueView, PageError> {
    identity.require_admin()?;
    Ok(console.store.queue_view().await?)
}

/// Rows of the audit log, and the id below which the next page begins.
pub(crate) async fn audit(
    console: &Console,
    identity: &Identity,
    below: Option<i64>,
    limit: i64,
) -> Result<(Vec<AuditRow>, Option<i64>), PageError> {
    identity.require_admin()?;
    let rows = console.store.audit_page(below, limit).await?;
    let next = rows.last().map(|row| row.id).filter(|_| rows.len() as i64 == limit);
    Ok((rows, next))
}

pub(crate) async fn running_acts(console: &Console, identity: &Identity) -> Result<Vec<ActStatus>, PageError> {
    identity.require_admin()?;
    Ok(console.store.running_acts().await?)
}

pub(crate) async fn act(console: &Console, identity: &Identity, id: Uuid) -> Result<ActStatus, PageError> {
    identity.require_admin()?;
    console.store.find_act(id).await?.ok_or(PageError::NotFound)
}
