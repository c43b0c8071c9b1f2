//! Why a task that a worker has leased is not settled.

use pulse_core::TASK_LEASE;

use crate::cause::Cause;
use crate::facts::Facts;
use crate::line::{no_worker, row_locked, scheduler_stopped};
use crate::reason::Reason;
use crate::words::{clock, time};
use crate::workers::{Condition, Workers, condition};

pub(crate) fn reasons(facts: &Facts) -> Vec<Reason> {
    let (status, now) = (facts.status(), facts.now());
    let worker = status.worker.as_deref().unwrap_or_default();
    let until = status.lease_until.unwrap_or(now);
    let has_expired = until <= now;
    let state = condition(facts, worker);
    let mut reasons = Vec::new();
    reasons.extend(row_locked(facts));
    if has_expired {
        reasons.extend(scheduler_stopped(facts));
    }
    if has_expired || state == Condition::Gone {
        reasons.extend(no_worker(facts, &Workers::of(facts)));
        if facts.task.crashed {
            reasons.push(poison(facts, worker));
        }
    }
    reasons.push(match state {
        _ if has_expired => Reason::new(
            Cause::WorkerGone,
            format!("Its lease expired {} ago: worker {worker} is dead or cannot reach PostgreSQL.", time(now - until)),
            "Wait: the scheduler ends expired leases every 5 s, and the task then runs again.",
        ),
        Condition::Gone => Reason::new(
            Cause::LeaseNotExpired,
            format!(
                "Worker {worker} is dead, and its lease lasts until {}, {} more.",
                clock(until, now),
                time(until - now)
            ),
            "Wait: when the lease has expired, the scheduler makes the task pending again within 5 s.",
        ),
        Condition::Stopped => Reason::new(
            Cause::WorkerStopped,
            format!(
                "Worker {worker} has sent no heartbeat for {}: it is stopped, or its machine cannot be reached.",
                time(now - until + chrono::TimeDelta::from_std(TASK_LEASE).unwrap_or_default()),
            ),
            format!(
                "Continue or restart the worker; its lease ends at {}, and another worker then runs the task.",
                clock(until, now)
            ),
        ),
        Condition::Alive => Reason::new(
            Cause::Running,
            format!(
                "Worker {worker} runs attempt {} since {}.",
                status.attempts,
                time(now - status.started_at.unwrap_or(now)),
            ),
            "Nothing, unless it takes longer than expected: an attempt ends at the latest after --task-timeout.",
        ),
    });
    reasons
}

fn poison(facts: &Facts, worker: &str) -> Reason {
    let id = facts.status().id;
    Reason::new(
        Cause::Poison,
        format!("It kills workers: one died with it before, it then ran alone, and worker {worker} died too."),
        format!(
            "Look for the end of that worker in its log; `pulse tasks cancel {id}` stops the task before its last attempt."
        ),
    )
}
