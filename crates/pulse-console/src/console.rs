//! What all pages share.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use pulse_http::Verifier;
use pulse_queue::Queue;
use pulse_store::{Store, StoreError, User};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::frame::Live;
use crate::metrics::ConsoleMetrics;

/// Maximum number of refused sign-ins of one peer in [`ATTEMPTS_PERIOD`].
const MAX_ATTEMPTS: u32 = 10;
const ATTEMPTS_PERIOD: Duration = Duration::from_mins(1);
/// Maximum number of peers whose sign-ins are counted.
const MAX_PEERS: u64 = 10_000;

/// Time for which what PostgreSQL says of a user counts, as in the API.
const USER_PERIOD: Duration = Duration::from_secs(5);
/// Time limit for a look-up of a user.
const USER_TIMEOUT: Duration = Duration::from_secs(1);

/// Settings of the console.
#[derive(Debug, Clone)]
pub struct ConsoleConfig {
    /// Name of the instance, shown on each page.
    pub instance: String,
    /// Refuses every action.
    pub read_only: bool,
    /// The file with the decisions of the operator; `None` where there is no operator.
    pub decisions_file: Option<PathBuf>,
}

/// The state of the console. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Console {
    pub(crate) config: Arc<ConsoleConfig>,
    pub(crate) store: Store,
    pub(crate) queue: Queue,
    pub(crate) verifier: Verifier,
    pub(crate) live: Live,
    /// The acts of this process.
    pub(crate) acts: TaskTracker,
    pub(crate) metrics: ConsoleMetrics,
    pub(crate) shutdown: CancellationToken,
    attempts: Cache<IpAddr, Arc<AtomicU32>>,
    users: Cache<String, Option<User>>,
}

impl Console {
    pub(crate) fn new(
        config: ConsoleConfig,
        store: Store,
        queue: Queue,
        verifier: Verifier,
        live: Live,
        metrics: ConsoleMetrics,
        shutdown: CancellationToken,
    ) -> Self {
        let attempts = Cache::builder().max_capacity(MAX_PEERS).time_to_live(ATTEMPTS_PERIOD).build();
        let users = Cache::builder().max_capacity(MAX_PEERS).time_to_live(USER_PERIOD).build();
        let (config, acts) = (Arc::new(config), TaskTracker::new());
        Self { config, store, queue, verifier, live, acts, metrics, shutdown, attempts, users }
    }

    /// The user with this `sub`, as of at most 5 s ago.
    pub(crate) async fn user(&self, subject: &str) -> Result<Option<User>, StoreError> {
        if let Some(user) = self.users.get(subject) {
            return Ok(user);
        }
        let found = tokio::time::timeout(USER_TIMEOUT, self.store.find_user(subject)).await;
        let user = found.map_err(|_| StoreError::TimedOut(USER_TIMEOUT))??;
        self.users.insert(subject.to_owned(), user.clone());
        Ok(user)
    }

    /// Counts a sign-in of the peer, before its token is verified, so that many at a time count too; `None` if there were too
    /// many. The period begins with the first one.
    pub(crate) fn begin_sign_in(&self, peer: IpAddr) -> Option<SignIn> {
        let attempts = self.attempts.get_with(network(peer), Arc::default);
        let may = attempts.fetch_add(1, Ordering::Relaxed) < MAX_ATTEMPTS;
        self.metrics.refused("attempts", u64::from(!may));
        may.then_some(SignIn(attempts))
    }
}

/// A sign-in that is counted as refused.
pub(crate) struct SignIn(Arc<AtomicU32>);

impl SignIn {
    /// The token is valid: only refused ones count.
    pub(crate) fn succeeded(self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one person has: an address of IPv4, or a /64 of IPv6.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_ins_are_counted_by_address_or_prefix() {
        let peer = |text: &str| network(text.parse().expect("valid"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_eq!(peer("2001:db8:0:1::1"), peer("2001:db8:0:1:ffff::2"));
        assert_ne!(peer("2001:db8:0:1::1"), peer("2001:db8:0:2::1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }
}
