//! The past of one object that a decision needs, in memory only. A new history is as cautious as one after an outage.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use pulse_queue::{Depth, Gauges};

use super::decision::Decision;
use super::estimate::{Estimate, LowerBound, QueueState};
use super::learning::{Learning, Point};
use super::policy::Policy;
use super::sample::{GAUGES_MAX_AGE, Sample, SampleError};

/// Number of incomplete samples in a row after which the backlog is unknown.
pub(super) const UNKNOWN_AFTER: u32 = 3;
/// The longest stabilization window and period that the schema allows.
const MAX_WINDOW: SignedDuration = SignedDuration::from_secs(3600);
/// Maximum number of recommendations and of changes kept; reached only if the number changes every few seconds.
const MAX_ENTRIES: usize = 1024;

/// The last samples, recommendations and changes of one object.
#[derive(Debug, Clone)]
pub struct History {
    /// State of the queue from the last complete sample.
    queue: Option<QueueState>,
    /// Lower bound from the newest sample, if that is incomplete.
    lower_bound: Option<LowerBound>,
    error: Option<SampleError>,
    newest: Option<Timestamp>,
    /// Incomplete samples in a row.
    missed_samples: u32,
    gauges: Option<GaugesSeen>,
    /// Start of the current time without due or in-flight tasks and without accepted or settled ones.
    idle_since: Option<Timestamp>,
    /// Start of the history without gaps: the start of the operator, the end of an outage, or a reset of the totals.
    reliable_since: Timestamp,
    learning: Learning,
    /// Equal neighbours are merged into one with the time of the newer.
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

/// The newest gauges, and the time of the sample that had them first.
#[derive(Debug, Clone, Copy)]
struct GaugesSeen {
    at_ms: i64,
    since: Timestamp,
    /// They differ from earlier gauges: a scheduler publishes them.
    changed: bool,
}

impl History {
    /// Starts at `now`, the time when the object was created or the operator started, with the live number of workers.
    pub fn new(now: Timestamp, live: u32) -> Self {
        Self {
            queue: None,
            lower_bound: None,
            error: None,
            newest: None,
            missed_samples: 0,
            gauges: None,
            idle_since: None,
            reliable_since: now,
            learning: Learning::default(),
            recommendations: VecDeque::from([(now, live)]),
            changes: VecDeque::new(),
        }
    }

    /// Adds a sample; the same sample again is ignored. `ready` is the number of ready workers.
    pub fn observe(&mut self, sample: &Sample, ready: u32, policy: &Policy) {
        match self.newest {
            Some(newest) if sample.at == newest => return,
            Some(newest) if sample.at < newest => self.clock_set_back(sample.at),
            _ => {}
        }
        let was_unknown = matches!(self.estimate(sample.at, policy.poll), Estimate::Unknown { .. });
        self.newest = Some(sample.at);
        self.error = sample.error;
        let gauges = self.fresh_gauges(sample);
        match (&sample.depth, gauges) {
            (Some(depth), Some(gauges)) => {
                if was_unknown {
                    self.reliable_since = sample.at;
                }
                self.observe_whole(sample, depth, gauges, ready, policy.concurrency);
            }
            (depth, _) => {
                self.lower_bound =
                    depth.as_ref().map(|depth| LowerBound { length: depth.length, in_flight: depth.in_flight });
                self.missed_samples = self.missed_samples.saturating_add(1);
                if self.missed_samples >= UNKNOWN_AFTER {
                    self.idle_since = None;
                }
            }
        }
    }

    /// The operator's clock was set back: moves future entries to `now`, and starts the history without gaps anew.
    fn clock_set_back(&mut self, now: Timestamp) {
        self.reliable_since = now;
        self.gauges = None;
        self.idle_since = None;
        for (at, _) in &mut self.recommendations {
            *at = now.min(*at);
        }
        for change in &mut self.changes {
            change.at = now.min(change.at);
        }
    }

    fn observe_whole(&mut self, sample: &Sample, depth: &Depth, gauges: &Gauges, ready: u32, concurrency: u16) {
        self.missed_samples = 0;
        self.lower_bound = None;
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
            self.reliable_since = sample.at;
        }
        let queue = QueueState::new(sample.at, sample.oldest_entry_ms, depth, gauges, change.accepted);
        // Unsettled tasks that are not in Redis, not due and not waiting for a retry: a worker runs them, and Redis
        // lost their entries.
        let hidden = gauges.unsettled > 0 && gauges.next_due_ms < 0;
        let has_activity = change.accepted || change.settled || change.reset;
        let is_idle = queue.backlog == 0 && !hidden && !has_activity && !queue.retry_is_near(sample.at);
        self.idle_since = is_idle.then(|| self.idle_since.unwrap_or(sample.at));
        self.queue = Some(queue);
    }

    /// The gauges of the sample, unless they are too old. The clocks of PostgreSQL and Redis may differ, so their age
    /// is the time for which they have not changed. The two clocks are compared only for the first gauges.
    fn fresh_gauges<'a>(&mut self, sample: &'a Sample) -> Option<&'a Gauges> {
        let (gauges, depth) = (sample.gauges.as_ref()?, sample.depth.as_ref()?);
        let seen = match self.gauges {
            Some(seen) if seen.at_ms == gauges.at_ms => seen,
            before => GaugesSeen { at_ms: gauges.at_ms, since: sample.at, changed: before.is_some() },
        };
        self.gauges = Some(seen);
        let by_clock = depth.redis_now_ms - gauges.at_ms <= GAUGES_MAX_AGE.as_millis() as i64;
        let unchanged = sample.at.duration_since(seen.since);
        (unchanged <= GAUGES_MAX_AGE && (seen.changed || by_clock)).then_some(gauges)
    }

    /// Records the recommendation and, if the number of workers changed, the change. Call it after the write.
    pub fn decided(&mut self, now: Timestamp, from: u32, decision: &Decision) {
        match self.recommendations.back_mut() {
            Some((at, count)) if *count == decision.recommended => *at = now,
            _ => self.recommendations.push_back((now, decision.recommended)),
        }
        if decision.replicas != from {
            self.changes.push_back(ScaleEvent { at: now, from, to: decision.replicas });
        }
        let old = |at: Timestamp| now.duration_since(at) > MAX_WINDOW;
        while self.recommendations.front().is_some_and(|(at, _)| old(*at)) || self.recommendations.len() > MAX_ENTRIES {
            self.recommendations.pop_front();
        }
        while self.changes.front().is_some_and(|change| old(change.at)) || self.changes.len() > MAX_ENTRIES {
            self.changes.pop_front();
        }
    }

    /// The error of the newest sample.
    pub fn error(&self) -> Option<SampleError> {
        self.error
    }

    /// Number of incomplete samples in a row: without the depth, or without current gauges.
    pub fn missed_samples(&self) -> u32 {
        self.missed_samples
    }

    /// Estimates the queue at `now`, with a sample expected every `poll`.
    pub(super) fn estimate(&self, now: Timestamp, poll: SignedDuration) -> Estimate {
        let newest = self.newest.unwrap_or(self.reliable_since);
        let silent = now.duration_since(newest) > poll * UNKNOWN_AFTER.cast_signed();
        match self.queue {
            _ if silent => Estimate::Unknown { lower_bound: None },
            _ if self.missed_samples >= UNKNOWN_AFTER => Estimate::Unknown { lower_bound: self.lower_bound },
            Some(queue) if self.missed_samples == 0 => Estimate::Whole(queue),
            last => Estimate::Stale { last, lower_bound: self.lower_bound },
        }
    }

    /// Duration of the current time without work and activity; `None` while there is any.
    pub(super) fn idle_for(&self, now: Timestamp) -> Option<SignedDuration> {
        self.idle_since.map(|since| now.duration_since(since))
    }

    /// Length of the history without gaps: since a start, an outage, a clock set back, or a reset of the totals.
    pub fn reliable_for(&self, now: Timestamp) -> SignedDuration {
        now.duration_since(self.reliable_since)
    }

    #[cfg(test)]
    pub(super) fn set_learning(&mut self, learning: Learning) {
        self.learning = learning;
    }

    pub(super) fn learning(&self) -> &Learning {
        &self.learning
    }

    /// Recommendations of the last `window`.
    pub(super) fn recommendations_within(&self, now: Timestamp, window: SignedDuration) -> impl Iterator<Item = u32> {
        let recent = move |at: Timestamp| now.duration_since(at) < window;
        self.recommendations.iter().rev().take_while(move |(at, _)| recent(*at)).map(|(_, count)| *count)
    }

    /// Numbers of workers added and removed in the last `period`.
    pub(super) fn changes_within(&self, now: Timestamp, period: SignedDuration) -> (u32, u32) {
        let recent = self.changes.iter().rev().take_while(|change| now.duration_since(change.at) < period);
        recent.fold((0, 0), |(added, removed), ScaleEvent { from, to, .. }| {
            (added + to.saturating_sub(*from), removed + from.saturating_sub(*to))
        })
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
