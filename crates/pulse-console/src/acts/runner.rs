//! Runs an act in the background, at its rate, until it ends or is stopped.

use std::time::Duration;

use pulse_store::{Act, ActOutcome, ActRun, StoreError};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::plan::Plan;
use crate::console::Console;
use crate::error::PageError;
use crate::identity::Identity;

/// How long an answer waits for the end of the act: few tasks are moved at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often per second an act moves tasks, at least.
const STEPS_PER_SECOND: i32 = 4;
/// Time for which an act tries again while PostgreSQL does not answer. Shorter than the 30 s after which the scheduler ends it.
const RETRY_FOR: Duration = Duration::from_secs(20);
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Starts the act, and waits a little for its end. It runs on when the browser is gone.
pub(crate) async fn start(console: &Console, identity: &Identity, plan: Plan, act: &Act) -> Result<Uuid, PageError> {
    identity.may_act(console)?;
    let shown = (Some(plan.matching.tasks), Some(plan.rate));
    let limit = plan.limit.unwrap_or(i64::MAX);
    let begun = console.store.begin_act(plan.verb.action(), &plan.filter, limit, shown, act).await?;
    let run = begun.ok_or(PageError::TooManyActs)?;
    tracing::info!(act = %act.id, actor = act.actor, action = plan.verb.as_str(), filter = %plan.filter, "an act begins");
    let ended = console.acts.spawn(work(run, plan.rate, console.shutdown.clone()));
    // Nothing depends on the end.
    let _ = timeout(PATIENCE, ended).await;
    Ok(act.id)
}

/// Stops an act.
pub(crate) async fn stop(console: &Console, identity: &Identity, id: Uuid) -> Result<(), PageError> {
    identity.may_act(console)?;
    if console.store.stop_act(id).await? { Ok(()) } else { Err(PageError::NotFound) }
}

async fn work(mut run: ActRun, rate: i32, shutdown: CancellationToken) {
    let id = run.id();
    let outcome = match moved_all(&mut run, rate, &shutdown).await {
        Ok(outcome) => outcome,
        Err(error) => {
            tracing::warn!(act = %id, %error, "an act failed");
            ActOutcome::Failed
        }
    };
    match run.end(outcome).await {
        Ok(moved) => tracing::info!(act = %id, tasks = moved.moved, busy = moved.busy, "an act ended"),
        Err(error) => tracing::warn!(act = %id, %error, "the scheduler ends this act"),
    }
}

async fn moved_all(run: &mut ActRun, rate: i32, shutdown: &CancellationToken) -> Result<ActOutcome, StoreError> {
    let size = i64::from((rate / STEPS_PER_SECOND).max(1));
    let mut failing_since = None;
    while !shutdown.is_cancelled() {
        let begun = Instant::now();
        let next = match run.step(size).await {
            Ok(None) => return Ok(ActOutcome::Completed),
            Ok(Some(selected)) => {
                failing_since = None;
                begun + Duration::from_secs_f64(selected as f64 / f64::from(rate))
            }
            Err(error) => {
                let since = *failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > RETRY_FOR {
                    return Err(error);
                }
                begun + RETRY_AFTER
            }
        };
        shutdown.run_until_cancelled(sleep_until(next)).await;
    }
    Ok(ActOutcome::Stopped)
}
