//! Leader election with a Lease of coordination.k8s.io: one operator writes at a time.
//!
//! Clocks of different machines are never compared. Another holder's Lease has expired once it did not change for
//! `duration` by our own monotonic clock. This operator leads as long as its last renewal was *sent* less than
//! `renew_deadline` ago, by a clock that also runs while the machine is suspended. Every write checks that, and is
//! aborted when the Lease would expire (see `client.rs`). An operator that loses the leadership ends its process.
//!
//! A write that the API server has already received is not fenced. Writes are short, and carry the resource version or
//! the UID that they are based on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

/// Configuration of the leader election.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Holder identity: unique to this start of the process.
    pub identity: String,
    /// Lease duration: time without a renewal after which another operator may take over.
    pub duration: Duration,
    /// Time without a renewal after which the leader stops writing. Shorter than `duration`.
    pub renew_deadline: Duration,
    /// Time between two attempts to acquire or renew the Lease.
    pub retry: Duration,
}

/// The leadership of this process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leadership {
    /// Time when the last renewal was sent, in milliseconds since boot, plus one; 0 without leadership.
    renewed: Arc<AtomicU64>,
    renew_deadline: Duration,
    duration: Duration,
}

impl Leadership {
    /// Starts without leadership.
    pub(crate) fn new(LeaseConfig { renew_deadline, duration, .. }: &LeaseConfig) -> Self {
        let (renew_deadline, duration) = (*renew_deadline, *duration);
        Self { renewed: Arc::default(), renew_deadline, duration }
    }

    /// Whether this process leads: the last renewal was sent within `renew_deadline`.
    pub(crate) fn is_leader(&self) -> bool {
        self.remaining().is_some()
    }

    /// Time until another operator may take over; `None` if this process does not lead.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let renewed = self.renewed.load(Ordering::Acquire).checked_sub(1)?;
        let age = since_boot().saturating_sub(Duration::from_millis(renewed));
        (age < self.renew_deadline).then(|| self.duration.saturating_sub(age))
    }

    fn set_renewed(&self, sent: Duration) {
        let millis = u64::try_from(sent.as_millis()).unwrap_or(u64::MAX - 1);
        self.renewed.store(millis + 1, Ordering::Release);
    }

    fn clear(&self) {
        self.renewed.store(0, Ordering::Release);
    }
}

/// Time since boot, including suspension: another operator may have taken over during it.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// The other holder's Lease, as last observed.
struct ObservedLease {
    version: Option<String>,
    since: Instant,
}

/// Acquires, renews and releases the Lease.
pub(crate) struct Elector {
    config: LeaseConfig,
    api: Api<Lease>,
    leadership: Leadership,
    observed: Option<ObservedLease>,
}

impl Elector {
    /// `client` must be able to write without leadership.
    pub(crate) fn new(config: LeaseConfig, client: Client, leadership: Leadership) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        Self { config, api, leadership, observed: None }
    }

    /// Returns once this process leads, or at `shutdown`.
    pub(crate) async fn acquire(&mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() && !self.acquire_or_renew().await {
            self.wait_retry_period(shutdown).await;
        }
    }

    /// Renews the Lease; returns when the leadership is lost, or at `shutdown`.
    pub(crate) async fn renew(&mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() && self.leadership.is_leader() {
            self.wait_retry_period(shutdown).await;
            if !shutdown.is_cancelled() {
                self.acquire_or_renew().await;
            }
        }
    }

    /// Releases the Lease, so that another operator can take over at once.
    pub(crate) async fn release(&mut self) {
        self.leadership.clear();
        let Ok(Ok(Some(lease))) = tokio::time::timeout(self.config.retry, self.api.get_opt(&self.config.name)).await
        else {
            return;
        };
        if holder(&lease) == Some(&self.config.identity) {
            let released = self.lease_object(Some(&lease), "");
            let replace = self.replace(&released);
            if tokio::time::timeout(self.config.retry, replace).await.is_err() {
                tracing::debug!("the Lease was not released and expires by itself");
            }
        }
    }

    async fn wait_retry_period(&self, shutdown: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(self.config.retry) => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Reads the Lease once, and acquires or renews it if it is free, expired or our own. Returns whether this process
    /// leads.
    async fn acquire_or_renew(&mut self) -> bool {
        let sent = since_boot();
        match tokio::time::timeout(self.config.renew_deadline / 2, self.try_acquire_or_renew()).await {
            Ok(Ok(true)) => {
                if !self.leadership.is_leader() {
                    tracing::info!(identity = self.config.identity, "became the leader");
                }
                self.leadership.set_renewed(sent);
            }
            // Another operator holds it.
            Ok(Ok(false)) => self.leadership.clear(),
            // The result is unknown: the leadership stays until the deadline.
            Ok(Err(error)) => tracing::warn!(%error, "cannot renew the Lease"),
            Err(_) => tracing::warn!("cannot renew the Lease: the API server does not answer"),
        }
        self.leadership.is_leader()
    }

    async fn try_acquire_or_renew(&mut self) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(&self.config.name).await?;
        let Some(lease) = lease else {
            let created =
                self.api.create(&PostParams::default(), &self.lease_object(None, &self.config.identity)).await;
            return outcome(created.map(drop));
        };
        let free = match holder(&lease) {
            None => true,
            Some(holder) if *holder == self.config.identity => true,
            Some(_) => self.has_expired(&lease),
        };
        if !free {
            return Ok(false);
        }
        outcome(self.replace(&self.lease_object(Some(&lease), &self.config.identity)).await)
    }

    /// Whether the other holder's Lease did not change for a whole lease duration.
    fn has_expired(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone();
        // The other holder may be configured with a longer lease duration than ours.
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        let theirs = Duration::from_secs(seconds.max(0).unsigned_abs().into());
        match &self.observed {
            Some(observed) if observed.version == version => {
                observed.since.elapsed() >= self.config.duration.max(theirs)
            }
            _ => {
                self.observed = Some(ObservedLease { version, since: Instant::now() });
                false
            }
        }
    }

    /// Replaces the Lease; fails if it changed since it was read.
    async fn replace(&self, lease: &Lease) -> Result<(), kube::Error> {
        self.api.replace(&self.config.name, &PostParams::default(), lease).await.map(drop)
    }

    fn lease_object(&self, lease: Option<&Lease>, holder_identity: &str) -> Lease {
        let now = MicroTime(Timestamp::now());
        let old = lease.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let same = old.holder_identity.as_deref() == Some(holder_identity);
        let metadata = lease
            .map(|lease| lease.metadata.clone())
            .unwrap_or_else(|| ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() });
        let seconds = i32::try_from(self.config.duration.as_secs().max(1)).unwrap_or(i32::MAX);
        Lease {
            metadata: ObjectMeta { managed_fields: None, ..metadata },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder_identity.to_owned()),
                lease_duration_seconds: Some(seconds),
                acquire_time: if same { old.acquire_time } else { Some(now.clone()) },
                renew_time: Some(now),
                lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(!same)),
                ..old
            }),
        }
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref().filter(|holder| !holder.is_empty())
}

/// A conflict means that another operator was faster.
fn outcome(result: Result<(), kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_deadline_ends_before_the_lease_expires() {
        let config = LeaseConfig {
            namespace: String::new(),
            name: String::new(),
            identity: String::new(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        };
        let leadership = Leadership::new(&config);
        assert_eq!(leadership.remaining(), None, "no leader at first");
        let renewed = |seconds_ago: u64| {
            leadership.set_renewed(since_boot() - Duration::from_secs(seconds_ago));
            leadership.remaining()
        };
        assert!(renewed(9).is_some_and(|left| left <= Duration::from_secs(6)));
        assert_eq!(renewed(10), None);
    }

    #[test]
    fn lease_clock_includes_suspension() {
        // The kernel reports the uptime by the same clock.
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux");
        let uptime: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds");
        assert!((since_boot().as_secs_f64() - uptime).abs() < 1.0, "{uptime}");
    }
}
