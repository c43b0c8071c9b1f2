//! A budget of memory, in bytes, that request bodies and answers take from while they are in memory.
//!
//! A number of requests bounds no memory, because a body has from 0 bytes to the limit. No request waits for the
//! budget: one that gets nothing is refused. One holder gets at most a share, so the others always have the rest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::problem::Problem;
use crate::problem_code::ProblemCode;

/// The part of the budget that one holder may take: one in this many.
const SHARES: usize = 4;

/// On whose behalf memory is taken, for example a user. The router puts it into the extensions of a request before the
/// body is read, and into those of a response with a large body. All without a holder are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Holder(pub i64);

/// A budget of bytes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct MemoryBudget(Arc<Inner>);

struct Inner {
    bytes: usize,
    /// Maximum for one holder.
    share: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    bytes: usize,
    by_holder: HashMap<Option<Holder>, usize>,
}

/// Nothing is left of the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exhausted {
    /// All holders together have taken it.
    #[error("the memory budget for bodies and answers is exhausted: raise the memory limit, or run more replicas")]
    Budget,
    /// This holder has taken its share.
    #[error("the requests of one user have taken their share of the memory budget for bodies and answers")]
    Share,
}

impl MemoryBudget {
    /// Creates a budget. Whatever `bytes` is, a holder alone can take `largest` bytes.
    pub(crate) fn new(bytes: usize, largest: usize) -> Self {
        let share = (bytes / SHARES).max(largest);
        Self(Arc::new(Inner { bytes: bytes.max(share), share, taken: Mutex::default() }))
    }

    /// Takes bytes for this holder, until the returned value is dropped.
    pub(crate) fn take(&self, holder: Option<Holder>, bytes: usize) -> Result<HeldBytes, Exhausted> {
        let mut held = HeldBytes { budget: self.clone(), holder, bytes: 0 };
        held.grow_to(bytes)?;
        Ok(held)
    }

    fn add(&self, holder: Option<Holder>, bytes: usize) -> Result<(), Exhausted> {
        let Inner { bytes: limit, share, taken } = &*self.0;
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.bytes + bytes > *limit {
            return Err(Exhausted::Budget);
        }
        let own = taken.by_holder.get(&holder).copied().unwrap_or_default() + bytes;
        if own > *share {
            return Err(Exhausted::Share);
        }
        taken.by_holder.insert(holder, own);
        taken.bytes += bytes;
        Ok(())
    }

    fn give_back(&self, holder: Option<Holder>, bytes: usize) {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.bytes -= bytes;
        if let Some(own) = taken.by_holder.get_mut(&holder) {
            *own -= bytes;
            if *own == 0 {
                taken.by_holder.remove(&holder);
            }
        }
    }
}

/// Bytes taken from the budget of the process. They are given back when this is dropped.
pub struct HeldBytes {
    budget: MemoryBudget,
    holder: Option<Holder>,
    bytes: usize,
}

impl HeldBytes {
    /// Takes more, so that this is at least `bytes`.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0 {
            self.budget.add(self.holder, more)?;
            self.bytes += more;
        }
        Ok(())
    }

    /// Returns the same content; this is dropped with the last reference to it. An answer is in memory until the
    /// connection has sent it, which is later than the end of its body.
    pub(crate) fn until_dropped(self, content: Bytes) -> Bytes {
        Bytes::from_owner(Content { content, _held: self })
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.holder, self.bytes);
        }
    }
}

struct Content {
    content: Bytes,
    _held: HeldBytes,
}

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl From<Exhausted> for Problem {
    /// 503 `overloaded`.
    fn from(exhausted: Exhausted) -> Self {
        let detail = match exhausted {
            Exhausted::Budget => "the requests in progress take too much memory: send the request again later",
            Exhausted::Share => {
                "your requests in progress take too much memory: send fewer or smaller ones at once, and this one again \
                 later"
            }
        };
        Self::new(ProblemCode::Overloaded, detail).retry_after(1).caused_by(exhausted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: Option<Holder> = Some(Holder(1));

    fn take(budget: &MemoryBudget, holder: Option<Holder>, bytes: usize) -> Result<HeldBytes, Exhausted> {
        budget.take(holder, bytes)
    }

    #[test]
    fn holder_gets_at_most_a_share_and_all_together_the_budget() {
        let budget = MemoryBudget::new(400, 10);
        let _first = take(&budget, ADA, 100).expect("a share");
        assert_eq!(take(&budget, ADA, 1).err(), Some(Exhausted::Share));
        let _others: Vec<_> =
            [None, Some(Holder(2)), Some(Holder(3))].map(|holder| take(&budget, holder, 100).expect("a share")).into();
        assert_eq!(take(&budget, Some(Holder(4)), 1).err(), Some(Exhausted::Budget));
    }

    #[test]
    fn held_bytes_grow_and_come_back_when_dropped() {
        let budget = MemoryBudget::new(400, 10);
        let mut held = take(&budget, ADA, 60).expect("fits");
        assert_eq!(held.grow_to(50), Ok(()));
        assert_eq!(held.grow_to(100), Ok(()));
        assert_eq!(held.grow_to(101), Err(Exhausted::Share));
        drop(held);
        assert_eq!(budget.0.taken.lock().expect("not poisoned").bytes, 0);
        assert!(budget.0.taken.lock().expect("not poisoned").by_holder.is_empty());
    }

    #[test]
    fn largest_request_fits_into_any_budget() {
        let budget = MemoryBudget::new(1, 1000);
        assert!(take(&budget, ADA, 1000).is_ok());
        assert_eq!(take(&budget, ADA, 1001).err(), Some(Exhausted::Budget));
    }

    #[test]
    fn bytes_of_an_answer_come_back_with_its_last_reference() {
        let budget = MemoryBudget::new(400, 10);
        let answer = take(&budget, ADA, 100).expect("fits").until_dropped(Bytes::from_static(b"answer"));
        let part = answer.slice(2..4);
        drop(answer);
        assert_eq!(&*part, b"sw");
        assert_eq!(take(&budget, ADA, 1).err(), Some(Exhausted::Share));
        drop(part);
        assert!(take(&budget, ADA, 100).is_ok());
    }
}
