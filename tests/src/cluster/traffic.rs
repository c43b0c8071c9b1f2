//! Requests and faults of a proxy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::request_info::RequestInfo;

pub(super) type Condition = Box<dyn Fn(&RequestInfo) -> bool + Send + Sync>;

/// A request that the proxy received.
#[derive(Clone, Debug)]
pub struct LoggedRequest {
    number: u64,
    /// Verb, resource and object of the request.
    pub call: RequestInfo,
    /// Request body.
    pub body: Bytes,
    /// Time of arrival.
    pub at: Instant,
    /// Status code of the response; `None` without a response.
    pub status: Option<u16>,
    /// Time from the arrival to the end of the response; `None` while the request is in progress.
    pub took: Option<Duration>,
    /// Fault that was injected.
    pub fault: Option<Fault>,
}

#[derive(Default)]
pub(super) struct Traffic {
    rules: Mutex<Vec<Arc<Rule>>>,
    pub(super) log: Mutex<Vec<LoggedRequest>>,
    pub(super) open: Mutex<Vec<(RequestInfo, CancellationToken)>>,
    numbers: AtomicU64,
}

struct Rule {
    applies: Condition,
    fault: Fault,
    /// Number of requests that the fault may still affect.
    left: Mutex<usize>,
    hits: Mutex<usize>,
}

/// An injected fault. It ends when this is dropped.
#[must_use = "the fault ends when this is dropped"]
pub struct InjectedFault {
    rule: Arc<Rule>,
    traffic: Arc<Traffic>,
}

impl InjectedFault {
    pub(super) fn new(traffic: Arc<Traffic>, times: usize, applies: Condition, fault: Fault) -> Self {
        let rule = Arc::new(Rule { applies, fault, left: Mutex::new(times), hits: Mutex::new(0) });
        lock(&traffic.rules).push(rule.clone());
        Self { rule, traffic }
    }

    /// Number of requests that the fault has affected.
    pub fn hits(&self) -> usize {
        *lock(&self.rule.hits)
    }
}

impl Drop for InjectedFault {
    fn drop(&mut self) {
        lock(&self.traffic.rules).retain(|rule| !Arc::ptr_eq(rule, &self.rule));
    }
}

impl Traffic {
    /// Fault to inject into this request.
    pub(super) fn fault(&self, call: &RequestInfo) -> Option<Fault> {
        let rules = lock(&self.rules).clone();
        rules.iter().rev().find(|rule| (rule.applies)(call) && rule.take()).map(|rule| rule.fault)
    }

    /// Adds a request to the log and returns its number.
    pub(super) fn begin(&self, call: &RequestInfo, body: Bytes, fault: Option<Fault>) -> u64 {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let at = Instant::now();
        lock(&self.log).push(LoggedRequest { number, call: call.clone(), body, at, status: None, took: None, fault });
        number
    }

    pub(super) fn answered(&self, number: u64, status: u16) {
        lock(&self.log).iter_mut().filter(|logged| logged.number == number).for_each(|logged| {
            logged.status = Some(status);
        });
    }

    pub(super) fn ended(&self, number: u64) {
        lock(&self.log).iter_mut().filter(|logged| logged.number == number).for_each(|logged| {
            logged.took = Some(logged.at.elapsed());
        });
    }

    pub(super) fn opened(&self, call: &RequestInfo, token: &CancellationToken) {
        lock(&self.open).push((call.clone(), token.clone()));
    }

    pub(super) fn closed(&self, token: &CancellationToken) {
        token.cancel();
        lock(&self.open).retain(|(_, token)| !token.is_cancelled());
    }
}

impl Rule {
    fn take(&self) -> bool {
        let mut left = lock(&self.left);
        if *left == 0 {
            return false;
        }
        *left -= 1;
        *lock(&self.hits) += 1;
        true
    }
}

/// Ignores poisoning: a test that panicked while it held the lock has already reported its failure.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
