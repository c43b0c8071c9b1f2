//! Objects that another client changes again and again. Each change back would be answered by another change, so they
//! are made less and less often.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::error::ReconcileError;
use crate::intervals::Intervals;

/// Changes back in a row that are made at once: a person who edits an object does not start a fight.
const TOLERATED: u32 = 3;
/// Shortest time without a foreign change after which a fight is over.
const CALM: Duration = Duration::from_secs(20);

/// The fights about one instance's objects.
#[derive(Debug, Clone, Default)]
pub struct Fights(HashMap<String, Fight>);

#[derive(Debug, Clone)]
struct Fight {
    changes: u32,
    last: Instant,
    /// Time to wait before the next change back.
    wait: Duration,
    rivals: String,
}

impl Fight {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > CALM.max(self.wait * 2)
    }

    fn is_contested(&self, now: Instant) -> bool {
        self.changes > TOLERATED && !self.is_over(now)
    }

    fn error(&self, key: &str) -> ReconcileError {
        let who = if self.rivals.is_empty() { "another client" } else { self.rivals.as_str() };
        ReconcileError::Contested(format!(
            "{key} is changed again and again by {who}; it is changed back less and less often: stop that client, or \
             set the field in the spec"
        ))
    }
}

impl Fights {
    /// The reason why the object is not changed back now; `None` if it may be.
    pub fn held(&self, key: &str, now: Instant) -> Option<ReconcileError> {
        let fight = self.0.get(key).filter(|fight| fight.is_contested(now) && now < fight.last + fight.wait)?;
        Some(fight.error(key))
    }

    /// Records that the object was changed back. `rivals` names the managers of its fields.
    pub fn changed_back(&mut self, key: &str, rivals: String, intervals: &Intervals, now: Instant) {
        let before = self.0.get(key).filter(|fight| !fight.is_over(now));
        let changes = before.map_or(0, |fight| fight.changes) + 1;
        let wait = changes.checked_sub(TOLERATED + 1).map_or(Duration::ZERO, |number| intervals.after(number));
        let rivals =
            if rivals.is_empty() { before.map(|fight| fight.rivals.clone()).unwrap_or_default() } else { rivals };
        self.0.insert(key.to_owned(), Fight { changes, last: now, wait, rivals });
    }

    /// A fight for the status, whether or not its object is as desired at the moment.
    pub fn contested(&self, now: Instant) -> Option<ReconcileError> {
        let first = self.0.iter().filter(|(_, fight)| fight.is_contested(now)).min_by_key(|(key, _)| *key);
        first.map(|(key, fight)| fight.error(key))
    }

    /// Those that are not over.
    #[must_use]
    pub fn pruned(mut self, now: Instant) -> Self {
        self.0.retain(|_, fight| !fight.is_over(now));
        self
    }

    /// Time until the next object may be changed back.
    pub fn next_attempt(&self, now: Instant) -> Option<Duration> {
        let waits = self.0.values().map(|fight| (fight.last + fight.wait).saturating_duration_since(now));
        waits.filter(|wait| !wait.is_zero()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fight_slows_down_names_its_rival_and_ends() {
        let (mut fights, intervals, start) = (Fights::default(), Intervals::default(), Instant::now());
        for _ in 0..TOLERATED {
            fights.changed_back("Service a", "\"vpa\": .spec".into(), &intervals, start);
            assert_eq!((fights.held("Service a", start), fights.contested(start)), (None, None));
        }
        let mut now = start;
        let mut writes = 0;
        // A rival that answers at once for an hour.
        while now < start + Duration::from_secs(3600) {
            if fights.held("Service a", now).is_none() {
                fights.changed_back("Service a", String::new(), &intervals, now);
                writes += 1;
            }
            now += Duration::from_millis(100);
        }
        assert!(writes < 25, "{writes} writes in an hour");
        let Some(ReconcileError::Contested(message)) = fights.contested(now) else { panic!("not reported") };
        assert!(message.contains("Service a") && message.contains("vpa"), "{message}");
        assert_eq!(fights.held("Service b", now), None);
        assert_eq!(fights.contested(now + Duration::from_secs(601)), None, "calm again");
    }
}
