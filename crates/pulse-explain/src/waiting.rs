//! Why a task waits that no worker has leased.

use chrono::TimeDelta;
use pulse_core::STALE_DELIVERY;
use pulse_queue::{EntryFacts, QueueFacts};

use crate::cause::Cause;
use crate::facts::Facts;
use crate::line::{no_worker, row_locked, scheduler_stopped};
use crate::reason::Reason;
use crate::words::{clock, count, quoted, time};
use crate::workers::{Condition, Workers, condition};

/// Time within which a due task is normally claimed.
const SOON: TimeDelta = TimeDelta::seconds(2);
/// Time without a claim after which workers with leases count as busy with long attempts.
const NO_CLAIM: TimeDelta = TimeDelta::seconds(5);
/// Number of tasks before this one from which they are a cause.
const MANY: i64 = 20;

pub(crate) fn reasons(facts: &Facts) -> Vec<Reason> {
    let workers = Workers::of(facts);
    let mut reasons: Vec<Reason> =
        [paused(facts), no_worker(facts, &workers), row_locked(facts)].into_iter().flatten().collect();
    if workers.alive == 0
        && let Some(worker) = workers.stopped.first()
    {
        reasons.push(worker_stopped(worker));
    }
    match backoff(facts) {
        Some(waits) => reasons.push(waits),
        None => due(facts, &workers, &mut reasons),
    }
    if facts.task.user.is_none() {
        reasons.push(Reason::new(
            Cause::UserDeleted,
            "Its user and its events were deleted.",
            "Nothing: the task ends as orphaned when a worker claims it.",
        ));
    }
    reasons
}

/// Adds the causes of a task that is due.
fn due(facts: &Facts, workers: &Workers<'_>, reasons: &mut Vec<Reason>) {
    let undelivered = match &facts.queue {
        Ok(queue) => {
            reasons.extend(entry(facts, queue));
            queue.undelivered
        }
        Err(error) => {
            reasons.push(redis_away(error));
            0
        }
    };
    // A worker that reads no delivery for 2 s claims due tasks from PostgreSQL, also without a scheduler.
    let needs_scheduler = facts.status().enqueued_at.is_none()
        || reasons.iter().any(|reason| matches!(reason.cause, Cause::LostEntry | Cause::WorkerGone));
    if needs_scheduler && undelivered > 0 {
        reasons.extend(scheduler_stopped(facts));
    }
    if workers.alive > 0 {
        reasons.extend(busy(facts));
    }
    reasons.extend(backlog(facts));
    if facts.task.crashed {
        reasons.push(Reason::new(
            Cause::Crashed,
            "A worker died while it had the task, so it runs alone: other tasks end first.",
            "Wait; if the next worker dies too, the task is the cause.",
        ));
    }
    reasons.push(Reason::new(
        Cause::InLine,
        format!("It is due since {} and waits for a worker.", time(facts.due_for())),
        "Nothing: it runs in a moment.",
    ));
}

fn paused(facts: &Facts) -> Option<Reason> {
    let pause = facts.pause.as_ref()?;
    let why = pause.reason.as_deref().map(|reason| format!(": {}", quoted(reason))).unwrap_or_default();
    let at = clock(pause.paused_at, facts.now());
    Some(Reason::new(
        Cause::Paused,
        format!("{} paused all claims at {at}{why}.", pause.actor),
        "Resume with `pulse resume`.",
    ))
}

fn worker_stopped(worker: &str) -> Reason {
    Reason::new(
        Cause::WorkerStopped,
        format!("Worker {worker} is stopped or hangs: it neither reads nor extends leases."),
        "Continue or restart the worker.",
    )
}

/// The wait for the next attempt, or for the rows of a task that a worker returned.
fn backoff(facts: &Facts) -> Option<Reason> {
    let (status, now) = (facts.status(), facts.now());
    let run_at = status.next_run_at.filter(|at| *at > now)?;
    let when = format!("It runs again at {}, in {}", clock(run_at, now), time(run_at - now));
    let sentence = match status.errors.last() {
        Some(last) => format!(
            "{when}: attempt {} of {} failed ({}): {}.",
            last.attempt,
            status.max_attempts.unwrap_or_default(),
            last.reason.as_str(),
            quoted(&last.error),
        ),
        None => format!("{when}: a worker returned it without an attempt."),
    };
    Some(Reason::new(Cause::Backoff, sentence, "Wait, or remove the cause of the error before then."))
}

fn redis_away(error: &str) -> Reason {
    Reason::new(
        Cause::RedisAway,
        format!("Redis cannot be used ({}), so workers search PostgreSQL for due tasks.", quoted(error)),
        "Repair Redis: `pulse check` says more; no task is lost.",
    )
}

/// What the entry says.
fn entry(facts: &Facts, queue: &QueueFacts) -> Option<Reason> {
    match &queue.entry {
        EntryFacts::Missing if queue.is_full => Some(Reason::new(
            Cause::RedisFull,
            "Redis is full and has refused its entry, so workers find it in PostgreSQL, and later than others.",
            "Raise maxmemory of Redis, or remove other data there.",
        )),
        EntryFacts::Missing if facts.due_for() > SOON => Some(Reason::new(
            Cause::LostEntry,
            "Redis has lost its entry, so no worker learns of it from there.",
            "Wait: the scheduler enqueues lost tasks again after 10 s; if this happens often, look at the persistence of Redis.",
        )),
        EntryFacts::Delivered { worker, idle_ms, .. } => delivered(facts, worker, *idle_ms),
        _ => None,
    }
}

fn delivered(facts: &Facts, worker: &str, idle_ms: u64) -> Option<Reason> {
    match condition(facts, worker) {
        Condition::Alive => None,
        Condition::Stopped => Some(worker_stopped(worker)),
        Condition::Gone => {
            let idle = TimeDelta::milliseconds(i64::try_from(idle_ms).unwrap_or(i64::MAX / 2));
            let stale = TimeDelta::from_std(STALE_DELIVERY).unwrap_or_default();
            Some(Reason::new(
                Cause::WorkerGone,
                format!("Worker {worker} read it {} ago and died before it claimed it.", time(idle)),
                format!("Wait: the scheduler takes the delivery back in {} and enqueues it again.", time(stale - idle)),
            ))
        }
    }
}

/// Whether all workers with leases have claimed nothing for a while.
fn busy(facts: &Facts) -> Option<Reason> {
    let leased = || facts.instance.leased.iter().filter(|leased| condition(facts, &leased.worker) == Condition::Alive);
    let newest = leased().map(|leased| leased.newest_claim).max()?;
    let oldest = leased().map(|leased| leased.oldest_claim).min()?;
    let (tasks, now) = (leased().map(|leased| leased.tasks).sum(), facts.now());
    (facts.due_for() > SOON && now - newest > NO_CLAIM).then(|| {
        Reason::new(
            Cause::WorkersBusy,
            format!(
                "All workers are busy: {} run, the newest since {}, the oldest since {}.",
                count(tasks, "attempt"),
                time(now - newest),
                time(now - oldest),
            ),
            "Add workers, raise --concurrency, or find out why these attempts take so long.",
        )
    })
}

/// The tasks before this one.
fn backlog(facts: &Facts) -> Option<Reason> {
    let before = &facts.instance.before;
    let total = before.first().map_or(0, |user| user.total);
    let own = before.iter().find(|user| user.user_id == facts.status().user_id).map_or(0, |user| user.tasks);
    let other = before.iter().filter(|user| user.user_id != facts.status().user_id).max_by_key(|user| user.tasks);
    if total < MANY {
        return None;
    }
    let more_workers = "Wait, or add workers.";
    if let Some(other) = other.filter(|other| other.tasks * 2 >= total) {
        let name = other.user.as_deref().unwrap_or("a deleted user");
        return Some(Reason::new(
            Cause::Neighbour,
            format!("{} before it are those of user {name}, of {total} in all.", count(other.tasks, "task")),
            format!(
                "Wait: one user delays others by 1,000 tasks at most; `pulse user limit {name}` slows it, more workers help."
            ),
        ));
    }
    if own * 2 >= total {
        let deep = facts.queue.as_ref().is_ok_and(|queue| queue.user_is_deep);
        let share =
            if deep { "; it is a deep user, whose further tasks get one place of eight beside others" } else { "" };
        let sentence = format!("{} of its own user are before it, of {total} in all{share}.", count(own, "task"));
        return Some(Reason::new(Cause::OwnBacklog, sentence, more_workers));
    }
    Some(Reason::new(Cause::Backlog, format!("{} of several users are before it.", count(total, "task")), more_workers))
}
