//! The past of one object that a decision needs: a value, handed in and out.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use crate::learning::{Learned, Learning, Point};
use crate::observed::{Depth, GAUGES_MAX_AGE, Gauges, Observed, Sample, Workers};
use crate::policy::Policy;
use crate::queue::{Estimate, QueueState};

/// Number of incomplete samples in a row after which the backlog is unknown.
pub(crate) const UNKNOWN_AFTER: u32 = 3;
/// The longest stabilization window and period that the schema allows.
const MAX_WINDOW: SignedDuration = SignedDuration::from_secs(3600);
/// Maximum number of recommendations and of changes kept; reached only if the number changes every few seconds.
const MAX_ENTRIES: usize = 1024;

/// What one decision leaves to the next. [`Learned`] is kept in the status, and the rest is forgotten by a
/// restart of the operator, after which nothing is removed for a whole stabilization window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    pub(crate) learning: Learning,
    /// State of the queue from the last complete sample.
    queue: Option<QueueState>,
    /// The depth of the newest sample, if that is incomplete: a lower bound.
    lower_bound: Option<Depth>,
    newest: Option<Timestamp>,
    /// Incomplete samples in a row.
    missed_samples: u32,
    gauges: Option<GaugesSeen>,
    /// Start of the current time without due or in-flight tasks and without accepted or running ones.
    pub(crate) idle_since: Option<Timestamp>,
    /// Start of the history without gaps: the first decision, the end of an outage, or a reset of the totals.
    reliable_since: Option<Timestamp>,
    /// Equal neighbours are merged into one with the time of the newer.
    recommendations: VecDeque<(Timestamp, u32)>,
    changes: VecDeque<(Timestamp, i64)>,
    /// The number of workers at the last decision, its time, and the number that it asked for.
    replicas: Option<u32>,
    decided: Option<(Timestamp, u32)>,
}

/// The newest gauges, and the time of the sample that had them first.
#[derive(Debug, Clone, Copy, PartialEq)]
struct GaugesSeen {
    at_ms: i64,
    since: Timestamp,
    /// They differ from earlier gauges: a scheduler publishes them.
    changed: bool,
}

impl Memory {
    /// The memory after a restart, with what the status kept.
    pub fn restored(learned: Learned) -> Self {
        Self { learning: Learning::restored(learned), ..Self::default() }
    }

    /// What to keep in the status.
    pub fn learned(&self) -> Learned {
        self.learning.learned()
    }

    /// Number of incomplete samples in a row: without the depth, or without current gauges.
    pub fn missed_samples(&self) -> u32 {
        self.missed_samples
    }

    /// Takes in what was found: the number of workers, and the sample unless it was taken in before.
    pub(crate) fn observe(&mut self, observed: &Observed, policy: &Policy, now: Timestamp) {
        if self.newest_entry().is_some_and(|newest| now < newest) {
            self.clock_set_back(now);
        }
        let replicas = observed.workers.replicas;
        if self.reliable_since.is_none() {
            self.reliable_since = Some(now);
            self.recommendations.push_back((now, replicas));
        }
        if let Some(before) = self.replicas.replace(replicas).filter(|before| *before != replicas) {
            let at = self.decided.filter(|(_, decided)| *decided == replicas).map_or(now, |(at, _)| at);
            self.changes.push_back((at, i64::from(replicas) - i64::from(before)));
        }
        self.learning.observe_start(observed.workers.start_seconds());
        if let Some(sample) = observed.sample.as_ref().filter(|sample| Some(sample.at) != self.newest) {
            self.observe_sample(sample, &observed.workers, policy);
        }
    }

    fn newest_entry(&self) -> Option<Timestamp> {
        self.recommendations.back().map(|(at, _)| *at)
    }

    fn observe_sample(&mut self, sample: &Sample, workers: &Workers, policy: &Policy) {
        let was_unknown = matches!(self.estimate(sample.at, policy.poll), Estimate::Unknown { .. });
        self.newest = Some(sample.at);
        match (&sample.depth, self.fresh_gauges(sample)) {
            (Some(depth), Some(gauges)) => {
                if was_unknown {
                    self.reliable_since = Some(sample.at);
                }
                let slots = workers.ready().saturating_mul(u32::from(policy.concurrency));
                self.observe_whole(sample.at, depth, gauges, slots, policy);
            }
            (depth, _) => {
                self.lower_bound = *depth;
                self.missed_samples = self.missed_samples.saturating_add(1);
                if self.missed_samples >= UNKNOWN_AFTER {
                    self.idle_since = None;
                }
            }
        }
    }

    fn observe_whole(&mut self, at: Timestamp, depth: &Depth, gauges: &Gauges, slots: u32, policy: &Policy) {
        self.missed_samples = 0;
        self.lower_bound = None;
        let point = Point {
            at_ms: gauges.at_ms,
            accepted: gauges.accepted_total,
            attempts: gauges.attempts_total,
            retried: gauges.retried_total,
            attempt_ms: gauges.attempt_ms_total,
            in_flight: depth.in_flight,
            waiting: depth.undelivered.saturating_add(gauges.due_not_enqueued.max(0).cast_unsigned()),
            slots,
        };
        let change = self.learning.observe(point, f64::from(policy.target.drain_seconds.max(1)));
        if change.reset {
            self.reliable_since = Some(at);
        }
        let queue = QueueState::new(at, depth, gauges, change.accepted);
        // Unsettled tasks that are not in Redis, not due and not waiting for a retry: a worker runs them, and Redis
        // lost their entries.
        let hidden = gauges.unsettled > 0 && gauges.next_due_ms < 0;
        let is_active = change.accepted || change.worked || change.reset || hidden;
        let has_tasks = queue.waiting > 0 || queue.in_flight > 0 || queue.retry_is_near(at);
        self.idle_since = (!is_active && !has_tasks).then(|| self.idle_since.unwrap_or(at));
        self.queue = Some(queue);
    }

    /// The operator's clock was set back: moves future entries to `now`, and starts the history without gaps anew.
    fn clock_set_back(&mut self, now: Timestamp) {
        self.reliable_since = Some(now);
        (self.gauges, self.idle_since, self.newest, self.decided) = (None, None, None, None);
        self.recommendations.iter_mut().for_each(|(at, _)| *at = now.min(*at));
        self.changes.iter_mut().for_each(|(at, _)| *at = now.min(*at));
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
        let by_clock = i128::from(depth.redis_now_ms - gauges.at_ms) <= GAUGES_MAX_AGE.as_millis();
        let unchanged = sample.at.duration_since(seen.since);
        (unchanged <= GAUGES_MAX_AGE && (seen.changed || by_clock)).then_some(gauges)
    }

    /// Records a decision. Its recommendation counts for the stabilization windows, whether it is applied or not.
    pub(crate) fn decided(&mut self, recommended: u32, replicas: u32, now: Timestamp) {
        self.decided = Some((now, replicas));
        match self.recommendations.back_mut() {
            Some((at, count)) if *count == recommended => *at = now,
            _ => self.recommendations.push_back((now, recommended)),
        }
        forget(&mut self.recommendations, now);
        forget(&mut self.changes, now);
    }

    /// Estimates the queue at `now`, with a sample expected every `poll`.
    pub(crate) fn estimate(&self, now: Timestamp, poll: SignedDuration) -> Estimate {
        let newest = self.newest.or(self.reliable_since);
        let silent = newest.is_some_and(|newest| now.duration_since(newest) > poll * UNKNOWN_AFTER.cast_signed());
        match self.queue {
            _ if silent => Estimate::Unknown { lower_bound: None },
            _ if self.missed_samples >= UNKNOWN_AFTER => Estimate::Unknown { lower_bound: self.lower_bound },
            Some(queue) if self.missed_samples == 0 => Estimate::Whole(queue),
            last => Estimate::Stale { last, lower_bound: self.lower_bound },
        }
    }

    /// Length of the history without gaps: since a start, an outage, a clock set back, or a reset of the totals.
    pub(crate) fn reliable_for(&self, now: Timestamp) -> SignedDuration {
        self.reliable_since.map_or(SignedDuration::ZERO, |since| now.duration_since(since))
    }

    /// Recommendations of the last `window`.
    pub(crate) fn recommendations_within(&self, now: Timestamp, window: SignedDuration) -> impl Iterator<Item = u32> {
        let recent = move |at: Timestamp| now.duration_since(at) < window;
        self.recommendations.iter().rev().take_while(move |(at, _)| recent(*at)).map(|(_, count)| *count)
    }

    /// Numbers of workers added and removed in the last `period`.
    pub(crate) fn changes_within(&self, now: Timestamp, period: SignedDuration) -> (u32, u32) {
        let recent = self.changes.iter().rev().take_while(|(at, _)| now.duration_since(*at) < period);
        let clamped = |count: i64| u32::try_from(count).unwrap_or(0);
        recent.fold((0, 0), |(added, removed), (_, change)| (added + clamped(*change), removed + clamped(-*change)))
    }
}

fn forget<T>(entries: &mut VecDeque<(Timestamp, T)>, now: Timestamp) {
    let is_old = |(at, _): &(Timestamp, T)| now.duration_since(*at) > MAX_WINDOW;
    while entries.front().is_some_and(is_old) || entries.len() > MAX_ENTRIES {
        entries.pop_front();
    }
}
