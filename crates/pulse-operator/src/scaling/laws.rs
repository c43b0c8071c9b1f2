//! How many workers the work needs, before bounds, windows and policies.

use jiff::Timestamp;

use super::decision::Law;
use super::history::History;
use super::policy::{Policy, Workers};
use super::reading::{Knowledge, Part, Reading};

/// A worker is planned to be busy for this part of its time, so that a queue does not build up by chance.
const UTILISATION: f64 = 0.8;
/// Law C adds workers from this part of the greatest age on.
const AGE_WARNING: f64 = 0.8;

/// What the work asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wish {
    /// Workers, not rounded.
    pub(super) exact: f64,
    pub(super) law: Law,
    /// Half a sentence: what it was computed from.
    pub(super) why: String,
    /// A task gets too old, too: no tolerance holds the number.
    pub(super) urgent: bool,
}

impl Wish {
    fn new(exact: f64, law: Law, why: impl Into<String>) -> Self {
        Self { exact, law, why: why.into(), urgent: false }
    }

    /// Workers. What is above a whole number only by the error of floating point is not one more.
    pub(super) fn count(&self) -> u32 {
        (self.exact - 1e-9).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
    }
}

/// What the work asks for now.
pub(super) fn wish(policy: &Policy, history: &History, workers: &Workers, now: Timestamp) -> Wish {
    let current = workers.replicas;
    match history.knowledge(now, policy.poll) {
        Knowledge::Whole(reading) => {
            let wish = aged(demand(policy, history, &reading), policy, &reading, workers, now);
            if current == 0 { woken(wish, &reading, now) } else { rested(wish, policy, history, workers, now) }
        }
        Knowledge::Stale { before, part } => {
            let known = before.map(|reading| demand(policy, history, &reading));
            let retry = before.filter(|reading| current == 0 && reading.wakes(now));
            let retry = retry.map(|_| Wish::new(1.0, Law::Wake, "a retry falls due"));
            at_least(f64::from(current), unknown(history), [known, retry, part.map(|part| lower_bound(policy, part))])
        }
        Knowledge::Unknown { part } => {
            at_least(f64::from(current.max(1)), unknown(history), [part.map(|part| lower_bound(policy, part))])
        }
    }
}

/// Law B once it can be computed, else law A.
fn demand(policy: &Policy, history: &History, reading: &Reading) -> Wish {
    let backlog = reading.backlog as f64;
    let learning = history.learning();
    if let (Some(throughput), Some(arrivals)) = (learning.throughput(), learning.arrivals()) {
        let drain = f64::from(policy.target.drain_seconds.max(1));
        let exact = (backlog / drain + arrivals) / (throughput * UTILISATION);
        let why = format!(
            "a backlog of {} and {arrivals:.1} arrivals/s, to be drained in {drain} s at {throughput:.1}/s per worker",
            reading.backlog
        );
        return Wish::new(exact, Law::Throughput, why);
    }
    by_backlog(policy, reading.backlog, "")
}

/// Law A.
fn by_backlog(policy: &Policy, backlog: u64, at_least: &str) -> Wish {
    let per_worker = policy.target.backlog_per_worker.max(1);
    let why = format!("a backlog of {at_least}{backlog} at {per_worker} per worker");
    Wish::new(backlog as f64 / f64::from(per_worker), Law::Backlog, why)
}

fn lower_bound(policy: &Policy, Part { length, .. }: Part) -> Wish {
    by_backlog(policy, length, "at least ")
}

/// Law C, if it asks for more. Only where work is waiting: more workers do not make a running task faster. Pods that are
/// still starting have to show first that they are not enough.
fn aged(wish: Wish, policy: &Policy, reading: &Reading, workers: &Workers, now: Timestamp) -> Wish {
    let (Some(limit), Some(age)) = (policy.target.max_age_seconds, reading.oldest_age) else { return wish };
    if !reading.has_waiting() || (age as f64) < AGE_WARNING * f64::from(limit) {
        return wish;
    }
    let current = workers.replicas;
    let exact = match current + (current / 2).max(1) {
        _ if age >= u64::from(limit) => policy.ceiling(),
        _ if workers.coming(now) => current,
        more => more,
    };
    if f64::from(exact) <= wish.exact {
        return Wish { urgent: exact > current, ..wish };
    }
    Wish::new(f64::from(exact), Law::Age, format!("the oldest task is {age} s old, of {limit} s at most"))
}

/// From zero: nobody unless there is, or soon will be, something to do.
fn woken(wish: Wish, reading: &Reading, now: Timestamp) -> Wish {
    let why = match &wish {
        wish if wish.exact > 0.0 && reading.backlog > 0 => return Wish { law: Law::Wake, ..wish.clone() },
        _ if reading.arrived => "tasks arrive",
        _ if reading.wakes(now) => "a retry falls due",
        _ => return Wish::new(0.0, Law::Idle, "nothing is owed"),
    };
    Wish::new(wish.exact.max(1.0), Law::Wake, why)
}

/// The last worker goes by the idle rule alone.
fn rested(wish: Wish, policy: &Policy, history: &History, workers: &Workers, now: Timestamp) -> Wish {
    if wish.exact > 1.0 {
        return wish;
    }
    match history.quiet_for(now).filter(|quiet| *quiet >= policy.idle) {
        Some(quiet) if may_sleep(policy, workers) => {
            Wish::new(0.0, Law::Idle, format!("nothing has been owed for {} s", quiet.as_secs()))
        }
        _ => Wish { exact: wish.exact.max(1.0), ..wish },
    }
}

fn may_sleep(policy: &Policy, workers: &Workers) -> bool {
    policy.floor() == 0 && workers.replicas == 1 && !workers.rolling_out && !workers.migrating
}

/// The greatest of these, or `hold` if none asks for more.
fn at_least<const N: usize>(hold: f64, why: String, wishes: [Option<Wish>; N]) -> Wish {
    let most = wishes.into_iter().flatten().max_by(|left, right| left.exact.total_cmp(&right.exact));
    most.filter(|wish| wish.exact > hold).unwrap_or_else(|| Wish::new(hold, Law::Unknown, why))
}

fn unknown(history: &History) -> String {
    let reason = history.error().map_or("the scheduler has not said what is owed", |error| error.reason());
    format!("the backlog is unknown ({reason}, {} samples)", history.misses())
}
