//! What one user uses of this process.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pulse_core::UserLimits;

use crate::limits::bucket::Bucket;

/// The buckets and places of one user.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Limits of this user, before those of the instance.
    limits: Mutex<UserLimits>,
    pub(super) requests: Bucket,
    pub(super) events: Bucket,
    pub(super) bytes: Bucket,
    in_flight: AtomicU32,
    lists: AtomicU32,
}

impl Usage {
    pub(crate) fn new(limits: UserLimits) -> Self {
        Self { limits: Mutex::new(limits), ..Self::default() }
    }

    pub(crate) fn limits(&self) -> UserLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_limits(&self, limits: UserLimits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }
}

/// What a [`Place`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Requests in flight.
    InFlight,
    /// Those of them that list or count events.
    Lists,
}

impl Counted {
    fn of(self, usage: &Usage) -> &AtomicU32 {
        match self {
            Self::InFlight => &usage.in_flight,
            Self::Lists => &usage.lists,
        }
    }
}

/// A place of a user. Free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    usage: Arc<Usage>,
    counted: Counted,
}

impl Place {
    /// Takes a place unless `limit` are taken.
    pub(super) fn take(usage: &Arc<Usage>, counted: Counted, limit: u32) -> Option<Self> {
        let place = Self { usage: usage.clone(), counted };
        let taken = counted.of(usage).fetch_add(1, Ordering::Relaxed);
        // A place that is one too many is dropped here.
        (taken < limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counted.of(&self.usage).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_free_again_after_use() {
        let usage = Arc::new(Usage::default());
        let take = |counted| Place::take(&usage, counted, 2);
        let (first, second) = (take(Counted::Lists), take(Counted::Lists));
        assert!(first.is_some() && second.is_some() && take(Counted::Lists).is_none());
        assert!(take(Counted::InFlight).is_some());
        drop(first);
        assert!(take(Counted::Lists).is_some());
    }
}
