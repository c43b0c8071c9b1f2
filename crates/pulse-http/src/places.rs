//! The places for connections of a port. Without a free one, a new connection takes that of an idle one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::state::ConnectionState;

/// Time to wait for a place before more idle connections are closed.
const CLOSE_INTERVAL: Duration = Duration::from_millis(50);
/// The part of the connections that is closed at once, so that a flood of new ones does not compare all connections for
/// each of them.
const CLOSED_SHARE: usize = 32;

/// At most a fixed number of connections.
pub(crate) struct Places {
    permits: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next_id: u64,
    connections: HashMap<u64, Arc<ConnectionState>>,
}

/// One connection's place.
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
    pub(crate) state: Arc<ConnectionState>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(max_connections: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))),
            open: Mutex::default(),
        })
    }

    /// Waits for a place, and closes idle connections until there is one.
    pub(crate) async fn take(self: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            self.close_idle();
            let freed = tokio::time::timeout(CLOSE_INTERVAL, self.permits.acquire());
            // The permit is returned at once: the next loop takes it.
            drop(freed.await);
        }
    }

    /// Takes a place if one is free.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Place> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        let state = Arc::new(ConnectionState::new());
        let mut open = self.open();
        let id = open.next_id;
        open.next_id += 1;
        open.connections.insert(id, state.clone());
        Some(Place { places: self.clone(), id, state, _permit: permit })
    }

    /// Closes some of the connections without a request: those without a successful one first, and the longest idle first.
    fn close_idle(&self) {
        let open = self.open();
        let mut idle: Vec<_> =
            open.connections.values().filter_map(|state| Some((state.dispensable()?, state))).collect();
        let count = open.connections.len() / CLOSED_SHARE + 1;
        if idle.len() > count {
            idle.select_nth_unstable_by_key(count, |(rank, _)| *rank);
        }
        for (_, state) in idle.iter().take(count) {
            state.unwanted.cancel();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().connections.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_connection_without_a_success_gives_up_its_place_first() {
        let places = Places::new(4);
        let place = |success: Option<bool>| {
            let place = places.try_take().expect("a free place");
            if let Some(success) = success {
                place.state.request_began(false);
                place.state.request_ended(!success);
            }
            place
        };
        let (good, bad, new, busy) = (place(Some(true)), place(Some(false)), place(None), place(None));
        busy.state.request_began(true);
        let rank = |place: &Place| place.state.dispensable();
        assert!(rank(&new) < rank(&good) && rank(&bad) < rank(&good) && rank(&busy).is_none());
        let closed = [&bad, &new, &good].map(|place| place.state.unwanted.clone());
        let freed = tokio::spawn(async move {
            for (place, token) in [bad, new].into_iter().zip(&closed) {
                token.cancelled().await;
                drop(place);
            }
            closed.map(|token| token.is_cancelled())
        });
        let (first, second) = (places.take().await, places.take().await);
        assert_eq!(freed.await.expect("both are closed"), [true, true, false]);
        drop((first, second, good, busy));
    }
}
