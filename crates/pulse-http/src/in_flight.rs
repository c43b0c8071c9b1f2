//! The places of requests in flight.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;
use crate::problem_code::ProblemCode;

/// The place of one request, given back when the last clone is dropped.
///
/// A request that waits for its body has no place: a client could keep one with a few bytes a second.
#[derive(Clone)]
pub(crate) struct Place(Arc<Inner>);

struct Inner {
    places: Arc<Semaphore>,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Place {
    /// Takes one of the places.
    ///
    /// # Errors
    /// 503 `overloaded` if there is none.
    pub(crate) fn take(places: &Arc<Semaphore>) -> Result<Self, Problem> {
        let place = Self(Arc::new(Inner { places: places.clone(), permit: Mutex::default() }));
        place.take_again()?;
        Ok(place)
    }

    /// Gives the place back until [`take_again`](Self::take_again).
    pub(crate) fn leave(&self) {
        self.permit().take();
    }

    /// Takes a place, unless the request has one.
    ///
    /// # Errors
    /// 503 `overloaded` if there is none.
    pub(crate) fn take_again(&self) -> Result<(), Problem> {
        let mut permit = self.permit();
        if permit.is_none() {
            *permit = Some(self.0.places.clone().try_acquire_owned().map_err(|_| overloaded())?);
        }
        Ok(())
    }

    fn permit(&self) -> std::sync::MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.0.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn overloaded() -> Problem {
    let detail = "too many requests are in progress: send the request again later";
    Problem::new(ProblemCode::Overloaded, detail).retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_that_was_left_can_be_taken_by_another_request() {
        let places = Arc::new(Semaphore::new(1));
        let first = Place::take(&places).expect("a place");
        assert!(Place::take(&places).is_err());
        first.leave();
        let second = Place::take(&places).expect("a place");
        assert!(first.take_again().is_err());
        drop(second);
        assert!(first.take_again().is_ok());
        assert!(first.take_again().is_ok(), "it is the same place");
        drop(first.clone());
        assert_eq!(places.available_permits(), 0);
        drop(first);
        assert_eq!(places.available_permits(), 1);
    }
}
