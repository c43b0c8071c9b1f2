//! Limits how many instances roll out at once. An instance whose rollout has to wait is reconciled again when another
//! one has ended; all of its other changes are applied meanwhile.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time after a start in which the running rollouts become known.
const START: Duration = Duration::from_secs(60);

/// The rollouts of all instances. `K` identifies an instance.
pub(crate) struct RolloutQueue<K> {
    /// Maximum number; `None` without a limit.
    limit: Option<usize>,
    started: Instant,
    state: Mutex<State<K>>,
}

struct State<K> {
    /// Instances that were reconciled since the start.
    seen: HashSet<K>,
    rolling: HashSet<K>,
    queue: VecDeque<K>,
}

impl<K: Clone + Eq + std::hash::Hash> RolloutQueue<K> {
    /// No rollouts yet.
    pub(crate) fn new(limit: Option<usize>) -> Self {
        let state = State { seen: HashSet::new(), rolling: HashSet::new(), queue: VecDeque::new() };
        Self { limit, started: Instant::now(), state: Mutex::new(state) }
    }

    /// Whether the rollout of an instance may begin, or has begun. If not, it waits in the queue. `known` is the number
    /// of all instances: until each was reconciled once after a start, the running rollouts are not all known.
    pub(crate) fn may_begin(&self, instance: &K, known: usize) -> bool {
        let Some(limit) = self.limit else { return true };
        let mut state = self.lock();
        state.seen.insert(instance.clone());
        if state.rolling.contains(instance) {
            return true;
        }
        if !state.queue.contains(instance) {
            state.queue.push_back(instance.clone());
        }
        let all_seen = state.seen.len() >= known || self.started.elapsed() > START;
        let free = limit.saturating_sub(state.rolling.len());
        let is_next = state.queue.iter().take(free).any(|waiting| waiting == instance);
        if !all_seen || !is_next {
            return false;
        }
        state.queue.retain(|waiting| waiting != instance);
        state.rolling.insert(instance.clone())
    }

    /// Records whether an instance is rolling out, or still waits for it. Returns the instances that may begin because of
    /// it.
    pub(crate) fn observe(&self, instance: &K, is_rolling: bool, is_waiting: bool) -> Vec<K> {
        let Some(limit) = self.limit else { return Vec::new() };
        let mut state = self.lock();
        state.seen.insert(instance.clone());
        let before = state.rolling.len() + state.queue.len();
        if !is_waiting {
            state.queue.retain(|waiting| waiting != instance);
        }
        if is_rolling {
            state.rolling.insert(instance.clone());
        } else {
            state.rolling.remove(instance);
        }
        let has_left = state.rolling.len() + state.queue.len() < before;
        if has_left { state.next(limit) } else { Vec::new() }
    }

    /// Forgets an instance that was deleted. Returns the instances that may begin because of it.
    pub(crate) fn forget(&self, is_deleted: impl Fn(&K) -> bool) -> Vec<K> {
        let mut state = self.lock();
        state.seen.retain(|instance| !is_deleted(instance));
        state.queue.retain(|instance| !is_deleted(instance));
        let before = state.rolling.len();
        state.rolling.retain(|instance| !is_deleted(instance));
        let ended = state.rolling.len() < before;
        self.limit.filter(|_| ended).map(|limit| state.next(limit)).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + std::hash::Hash> State<K> {
    fn next(&self, limit: usize) -> Vec<K> {
        self.queue.iter().take(limit.saturating_sub(self.rolling.len())).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollouts_are_limited_and_begin_in_the_order_of_their_requests() {
        let rollouts = RolloutQueue::new(Some(2));
        let began = |name: &'static str| rollouts.may_begin(&name, 4);
        for name in ["a", "b", "c", "d", "e"] {
            rollouts.observe(&name, false, false);
        }
        assert_eq!(["a", "b", "c", "d", "e"].map(began), [true, true, false, false, false]);
        assert!(began("a"), "it has begun before");
        assert_eq!(rollouts.observe(&"b", false, false), ["c"]);
        assert_eq!(["d", "c"].map(began), [false, true], "c asked first");
        assert!(rollouts.observe(&"d", false, false).is_empty(), "d was changed back and does not wait any more");
        assert_eq!(rollouts.forget(|name| *name == "a"), ["e"]);
        assert!(began("e"));
    }

    #[test]
    fn rollouts_that_run_at_the_start_count() {
        let rollouts = RolloutQueue::new(Some(1));
        assert!(!rollouts.may_begin(&"a", 2), "b may be rolling out");
        assert!(rollouts.observe(&"b", true, false).is_empty());
        assert!(!rollouts.may_begin(&"a", 2));
        assert_eq!(rollouts.observe(&"b", false, false), ["a"]);
        assert!(rollouts.may_begin(&"a", 2));
        assert!(RolloutQueue::new(None).may_begin(&"a", 2), "without a limit");
    }
}
