//! What a decision needs of the past of one object, in memory only. A new history is as careful as one after an outage.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use pulse_queue::{Depth, Gauges};

use super::decision::Decision;
use super::estimate::{Estimate, LowerBound, QueueState};
use super::learning::{Learning, Point};
use super::policy::Policy;
use super::sample::{GAUGES_MAX_AGE, Sample, SampleError};

/// So many samples in a row that did not show the backlog, and it is unknown.
pub(super) const UNKNOWN_AFTER: u32 = 3;
/// The longest window and period that the schema allows.
const LONGEST: SignedDuration = SignedDuration::from_secs(3600);
/// The most recommendations and changes that are kept; reached only if the number changes every few seconds.
const MOST_KEPT: usize = 1024;

/// The past of one object: the last samples, recommendations and changes.
#[derive(Debug, Clone)]
pub struct History {
    /// The last sample that showed the whole backlog.
    queue: Option<QueueState>,
    /// What the newest sample showed, if it did not show the whole backlog.
    part: Option<LowerBound>,
    error: Option<SampleError>,
    newest: Option<Timestamp>,
    /// Samples in a row that did not show the whole backlog.
    misses: u32,
    gauges: Option<GaugesSeen>,
    /// Since when nothing is unsettled and nothing happens.
    quiet_since: Option<Timestamp>,
    /// When we last could not be sure of the past: a start, the end of an outage, another database.
    unsure_at: Timestamp,
    learning: Learning,
    /// Equal neighbours are one, with the time of the newer.
    recommendations: VecDeque<(Timestamp, u32)>,
    changes: VecDeque<ScaleEvent>,
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
            queue: None,
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

    /// Takes in a sample; the same again is ignored. `ready` workers were there.
    pub fn observe(&mut self, sample: &Sample, ready: u32, policy: &Policy) {
        match self.newest {
            Some(newest) if sample.at == newest => return,
            Some(newest) if sample.at < newest => self.rewind(sample.at),
            _ => {}
        }
        let was_unknown = matches!(self.estimate(sample.at, policy.poll), Estimate::Unknown { .. });
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
                self.part = depth.as_ref().map(|depth| LowerBound { length: depth.length, in_flight: depth.in_flight });
                self.misses = self.misses.saturating_add(1);
                if self.misses >= UNKNOWN_AFTER {
                    self.quiet_since = None;
                }
            }
        }
    }

    /// Our clock was set back: what lies in the future happened just now, and we are sure of nothing.
    fn rewind(&mut self, now: Timestamp) {
        self.unsure_at = now;
        self.gauges = None;
        self.quiet_since = None;
        for (at, _) in &mut self.recommendations {
            *at = now.min(*at);
        }
        for change in &mut self.changes {
            change.at = now.min(change.at);
        }
    }

    fn observe_whole(&mut self, sample: &Sample, depth: &Depth, gauges: &Gauges, ready: u32, concurrency: u16) {
        self.misses = 0;
        self.part = None;
        let change = self.learning.observe(
            Point {
                at_ms: gauges.at_ms,
                accepted: gauges.accepted_total,
                settled: gauges.settled_total,
                busy_ms: gauges.busy_worker_ms,
                waiting: signed(depth.undelivered()).saturating_add(gauges.due_not_enqueued),
                in_flight: signed(depth.in_flight),
                ready,
            },
            concurrency,
        );
        if change.reset {
            self.unsure_at = sample.at;
        }
        let queue = QueueState::new(sample.at, sample.oldest_entry_ms, depth, gauges, change.accepted);
        // Owed, but neither in Redis, nor due, nor waiting for a retry: a worker has it though Redis lost the entry.
        let hidden = gauges.unsettled > 0 && gauges.next_due_ms < 0;
        let happens = change.accepted || change.settled || change.reset;
        let is_quiet = queue.backlog == 0 && !hidden && !happens && !queue.wakes(sample.at);
        self.quiet_since = is_quiet.then(|| self.quiet_since.unwrap_or(sample.at));
        self.queue = Some(queue);
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

    /// What is known at `now`, if a sample comes every `poll`.
    pub(super) fn estimate(&self, now: Timestamp, poll: SignedDuration) -> Estimate {
        let silent_since = self.newest.unwrap_or(self.unsure_at);
        let silent = now.duration_since(silent_since) > poll * UNKNOWN_AFTER.cast_signed();
        match self.queue {
            _ if silent => Estimate::Unknown { part: None },
            _ if self.misses >= UNKNOWN_AFTER => Estimate::Unknown { part: self.part },
            Some(queue) if self.misses == 0 => Estimate::Whole(queue),
            before => Estimate::Stale { before, part: self.part },
        }
    }

    /// For how long nothing has been unsettled and nothing has happened.
    pub(super) fn quiet_for(&self, now: Timestamp) -> Option<SignedDuration> {
        self.quiet_since.map(|since| now.duration_since(since))
    }

    /// For how long we have been sure of the past.
    pub fn sure_for(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.unsure_at)
    }

    #[cfg(test)]
    pub(super) fn learn(&mut self, learning: Learning) {
        self.learning = learning;
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

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
