//! What a decision needs of the past of one object, in memory only. A new history is as careful as one after an outage.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use pulse_queue::{Depth, Gauges};

use super::decision::Decision;
use super::learning::{Learning, Point};
use super::policy::Policy;
use super::sample::{GAUGES_MAX_AGE, Sample, SampleError};

/// So many samples in a row that did not show the backlog, and it is unknown.
pub(super) const UNKNOWN_AFTER: u32 = 3;
/// The workers are there so long before a retry falls due, and do not go once one is as close.
pub(super) const WAKE_LEAD: SignedDuration = SignedDuration::from_secs(30);
/// The longest window and period that the schema allows.
const LONGEST: SignedDuration = SignedDuration::from_secs(3600);
/// The most recommendations and changes that are kept; reached only if the number changes every few seconds.
const MOST_KEPT: usize = 1024;

/// The past of one object: the last samples, recommendations and changes.
#[derive(Debug, Clone)]
pub struct History {
    /// The last sample that showed the whole backlog.
    reading: Option<Reading>,
    /// What the newest sample showed, if it did not show the whole backlog.
    part: Option<Part>,
    error: Option<SampleError>,
    newest: Option<Timestamp>,
    /// Samples in a row that did not show the whole backlog.
    misses: u32,
    gauges: Option<GaugesSeen>,
    /// Since when nothing is owed and nothing happens.
    quiet_since: Option<Timestamp>,
    /// When we last could not be sure of the past: a start, the end of an outage, another database.
    unsure_at: Timestamp,
    learning: Learning,
    /// Equal neighbours are one, with the time of the newer.
    recommendations: VecDeque<(Timestamp, u32)>,
    changes: VecDeque<ScaleEvent>,
}

/// The whole backlog. Figures count tasks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    pub(super) backlog: u64,
    pub(super) in_flight: u64,
    /// Age of the oldest task that is due, in seconds.
    pub(super) oldest_age: Option<u64>,
    /// When the next retry falls due, by the operator's clock.
    pub(super) next_due: Option<Timestamp>,
    /// Tasks were accepted since the reading before.
    pub(super) arrived: bool,
}

/// The part of the backlog that Redis knows: a lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) length: u64,
    pub(super) in_flight: u64,
}

/// What is known at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Knowledge {
    /// The whole backlog, just now.
    Whole(Reading),
    /// The newest samples did not show it: what was known before, and what they showed.
    Stale { before: Option<Reading>, part: Option<Part> },
    /// Not known any more.
    Unknown { part: Option<Part> },
}

/// A change of the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ScaleEvent {
    at: Timestamp,
    from: u32,
    to: u32,
}

/// The newest gauges, and since when they are the newest.
#[derive(Debug, Clone, Copy)]
struct GaugesSeen {
    at_ms: i64,
    since: Timestamp,
    /// They were seen to change: somebody publishes them.
    moved: bool,
}

impl History {
    /// Starts at `now`, which is the creation of the object or a start of the operator, with the live number of workers.
    pub fn new(now: Timestamp, live: u32) -> Self {
        Self {
            reading: None,
            part: None,
            error: None,
            newest: None,
            misses: 0,
            gauges: None,
            quiet_since: None,
            unsure_at: now,
            learning: Learning::default(),
            recommendations: VecDeque::from([(now, live)]),
            changes: VecDeque::new(),
        }
    }

    /// Takes in a sample; one that is not newer than the last is ignored. `ready` workers were there.
    pub fn observe(&mut self, sample: &Sample, ready: u32, policy: &Policy) {
        if self.newest.is_some_and(|newest| sample.at <= newest) {
            return;
        }
        let was_unknown = matches!(self.knowledge(sample.at, policy.poll), Knowledge::Unknown { .. });
        self.newest = Some(sample.at);
        self.error = sample.error;
        let gauges = self.fresh(sample);
        match (&sample.depth, gauges) {
            (Some(depth), Some(gauges)) => {
                if was_unknown {
                    self.unsure_at = sample.at;
                }
                self.observe_whole(sample, depth, gauges, ready, policy.concurrency);
            }
            (depth, _) => {
                self.part = depth.as_ref().map(|depth| Part { length: depth.length, in_flight: depth.in_flight });
                self.misses = self.misses.saturating_add(1);
                if self.misses >= UNKNOWN_AFTER {
                    self.quiet_since = None;
                }
            }
        }
    }

    fn observe_whole(&mut self, sample: &Sample, depth: &Depth, gauges: &Gauges, ready: u32, concurrency: u16) {
        self.misses = 0;
        self.part = None;
        let due_unqueued = gauges.due_unqueued.max(0).cast_unsigned();
        let waiting = depth.undelivered().saturating_add(due_unqueued);
        let change = self.learning.observe(
            Point {
                at_ms: gauges.at_ms,
                accepted: gauges.accepted_total,
                settled: gauges.settled_total,
                busy_ms: gauges.busy_worker_ms,
                waiting: signed(waiting),
                in_flight: signed(depth.in_flight),
                ready,
            },
            concurrency,
        );
        if change.reset {
            self.unsure_at = sample.at;
        }
        // A Redis that came back empty says nothing of what was in it, and PostgreSQL takes it for enqueued until the
        // sweep looks. Where no retry waits, all that is owed is due.
        let forgotten = if gauges.next_due_ms < 0 { gauges.owed.max(0).cast_unsigned() } else { 0 };
        let reading = Reading {
            backlog: depth.length.saturating_add(due_unqueued).max(forgotten),
            in_flight: depth.in_flight,
            oldest_age: oldest_age(sample, depth, gauges),
            next_due: next_due(sample.at, depth, gauges),
            arrived: change.accepted,
        };
        // Owed, but neither in Redis, nor due, nor waiting for a retry: a worker has it though Redis lost the entry.
        let hidden = gauges.owed > 0 && gauges.next_due_ms < 0;
        let happens = change.accepted || change.settled || change.reset;
        let is_quiet = reading.backlog == 0 && !hidden && !happens && !reading.wakes(sample.at);
        self.quiet_since = is_quiet.then(|| self.quiet_since.unwrap_or(sample.at));
        self.reading = Some(reading);
    }

    /// The sample's gauges, unless they are too old. The clocks of PostgreSQL and Redis may differ, so what counts is
    /// for how long they have not changed; only of the first ones do we ask the clocks.
    fn fresh<'a>(&mut self, sample: &'a Sample) -> Option<&'a Gauges> {
        let (gauges, depth) = (sample.gauges.as_ref()?, sample.depth.as_ref()?);
        let seen = match self.gauges {
            Some(seen) if seen.at_ms == gauges.at_ms => seen,
            before => GaugesSeen { at_ms: gauges.at_ms, since: sample.at, moved: before.is_some() },
        };
        self.gauges = Some(seen);
        let by_clock = depth.redis_now_ms - gauges.at_ms <= GAUGES_MAX_AGE.as_millis() as i64;
        let unchanged = sample.at.duration_since(seen.since);
        (unchanged <= GAUGES_MAX_AGE && (seen.moved || by_clock)).then_some(gauges)
    }

    /// Remembers what was recommended and, if the number of workers was changed, the change. Called after the write.
    pub fn decided(&mut self, now: Timestamp, from: u32, decision: &Decision) {
        match self.recommendations.back_mut() {
            Some((at, count)) if *count == decision.recommended => *at = now,
            _ => self.recommendations.push_back((now, decision.recommended)),
        }
        if decision.replicas != from {
            self.changes.push_back(ScaleEvent { at: now, from, to: decision.replicas });
        }
        let old = |at: Timestamp| now.duration_since(at) > LONGEST;
        while self.recommendations.front().is_some_and(|(at, _)| old(*at)) || self.recommendations.len() > MOST_KEPT {
            self.recommendations.pop_front();
        }
        while self.changes.front().is_some_and(|change| old(change.at)) || self.changes.len() > MOST_KEPT {
            self.changes.pop_front();
        }
    }

    /// Why the newest sample does not show everything.
    pub fn error(&self) -> Option<SampleError> {
        self.error
    }

    /// Samples in a row that did not show the whole backlog.
    pub fn misses(&self) -> u32 {
        self.misses
    }

    /// When the number of workers last changed.
    pub fn last_scale_time(&self) -> Option<Timestamp> {
        self.changes.back().map(|change| change.at)
    }

    /// What is known at `now`, if a sample comes every `poll`.
    pub(super) fn knowledge(&self, now: Timestamp, poll: SignedDuration) -> Knowledge {
        let silent_since = self.newest.unwrap_or(self.unsure_at);
        let silent = now.duration_since(silent_since) > poll * UNKNOWN_AFTER.cast_signed();
        match self.reading {
            _ if silent => Knowledge::Unknown { part: None },
            _ if self.misses >= UNKNOWN_AFTER => Knowledge::Unknown { part: self.part },
            Some(reading) if self.misses == 0 => Knowledge::Whole(reading),
            before => Knowledge::Stale { before, part: self.part },
        }
    }

    /// For how long nothing has been owed and nothing has happened.
    pub(super) fn quiet_for(&self, now: Timestamp) -> Option<SignedDuration> {
        self.quiet_since.map(|since| now.duration_since(since))
    }

    /// For how long we have been sure of the past.
    pub(super) fn sure_for(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.unsure_at)
    }

    pub(super) fn learning(&self) -> &Learning {
        &self.learning
    }

    /// Recommendations of the last `window`.
    pub(super) fn recommended(&self, now: Timestamp, window: SignedDuration) -> impl Iterator<Item = u32> {
        let recent = move |at: Timestamp| now.duration_since(at) < window;
        self.recommendations.iter().rev().take_while(move |(at, _)| recent(*at)).map(|(_, count)| *count)
    }

    /// How many workers were added and how many removed in the last `period`.
    pub(super) fn changed(&self, now: Timestamp, period: SignedDuration) -> (u32, u32) {
        let recent = self.changes.iter().rev().take_while(|change| now.duration_since(change.at) < period);
        recent.fold((0, 0), |(added, removed), ScaleEvent { from, to, .. }| {
            (added + to.saturating_sub(*from), removed + from.saturating_sub(*to))
        })
    }
}

impl Reading {
    /// Whether a retry is due, or so soon that workers should be there.
    pub(super) fn wakes(&self, now: Timestamp) -> bool {
        self.next_due.is_some_and(|due| due.duration_since(now) <= WAKE_LEAD)
    }

    /// Whether more workers would find something to do.
    pub(super) fn has_waiting(&self) -> bool {
        self.backlog > self.in_flight
    }
}

/// PostgreSQL's age of the oldest owed task includes the time that it waited for a retry, which no worker can shorten.
/// So what is in the stream counts from when it got there.
fn oldest_age(sample: &Sample, depth: &Depth, gauges: &Gauges) -> Option<u64> {
    let owed_ms = gauges.oldest_age_ms.max(0);
    let queued_ms = sample.oldest_entry_ms.map(|at_ms| (depth.redis_now_ms - at_ms).max(0));
    let age_ms = match queued_ms {
        Some(queued_ms) if gauges.due_unqueued <= 0 => queued_ms.min(owed_ms),
        None if gauges.due_unqueued <= 0 => return None,
        _ => owed_ms,
    };
    Some(age_ms.cast_unsigned() / 1000)
}

fn next_due(at: Timestamp, depth: &Depth, gauges: &Gauges) -> Option<Timestamp> {
    let in_ms = Some(gauges.next_due_ms).filter(|in_ms| *in_ms >= 0)?;
    let age_ms = (depth.redis_now_ms - gauges.at_ms).clamp(0, GAUGES_MAX_AGE.as_millis() as i64);
    at.checked_add(SignedDuration::from_millis(in_ms - age_ms)).ok()
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
