//! Causes that more than one state has.

use crate::cause::Cause;
use crate::facts::Facts;
use crate::reason::Reason;
use crate::words::{clock, time};
use crate::workers::Workers;

pub(crate) fn no_worker(facts: &Facts, workers: &Workers<'_>) -> Option<Reason> {
    if workers.alive > 0 || !workers.stopped.is_empty() {
        return None;
    }
    let dead = facts.instance.leased.len().max(facts.queue.as_ref().map_or(0, |queue| queue.consumers.len()));
    let sentence = match dead {
        0 => "No worker runs, and none has run lately.".to_owned(),
        _ => format!("No worker runs: {dead} that ran before {} dead.", if dead == 1 { "is" } else { "are" }),
    };
    Some(Reason::new(
        Cause::NoWorker,
        sentence,
        "Start a worker: `pulse worker`, or raise `spec.workers` of the instance.",
    ))
}

pub(crate) fn row_locked(facts: &Facts) -> Option<Reason> {
    let lock = facts.task.lock.as_ref()?;
    let since = lock.since.map(|since| format!(" since {}", time(facts.now() - since))).unwrap_or_default();
    let who = lock.application.as_deref().filter(|name| !name.is_empty()).unwrap_or("a client without a name");
    let (session, advice) = match lock.pid {
        Some(pid) => (
            format!("process {pid} of PostgreSQL ({who})"),
            format!("End that transaction; `SELECT pg_terminate_backend({pid})` does."),
        ),
        None => {
            ("a prepared transaction".to_owned(), "Commit or roll it back: `pg_prepared_xacts` lists it.".to_owned())
        }
    };
    let row = if lock.row == "task" { "its row" } else { "the row of an event of it" };
    Some(Reason::new(Cause::RowLocked, format!("A transaction has locked {row}{since}: {session}."), advice))
}

pub(crate) fn scheduler_stopped(facts: &Facts) -> Option<Reason> {
    let sentence = match facts.scheduler_stopped_since()? {
        Some(since) => {
            let ago = time(facts.now() - since);
            format!(
                "No scheduler runs since {}, for {ago}, and only it makes this task pending again.",
                clock(since, facts.now())
            )
        }
        None => "No scheduler has ever run, and only it makes this task pending again.".to_owned(),
    };
    Some(Reason::new(Cause::SchedulerStopped, sentence, "Start a scheduler: `pulse scheduler`."))
}
