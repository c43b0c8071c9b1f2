//! Leadership, by a Lease of coordination.k8s.io: one operator writes at a time.
//!
//! No two clocks are compared: a holder has lost when its Lease was not seen to change for `duration` by our own
//! monotonic clock. We lead only as long as our last renewal was *sent* less than `renew_deadline` ago, by a clock that goes
//! on while the machine is suspended, and every write checks that, and is given up when the lease would end (see `client.rs`). Whoever loses ends its process. Nothing fences
//! a write that the API server already has: writes are short, and name the version or the identity that they saw.

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

/// How leadership is kept.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Where the Lease is.
    pub namespace: String,
    /// The Lease.
    pub name: String,
    /// Who we are: unique to this start of the process.
    pub identity: String,
    /// After this long without a change, a holder has lost.
    pub duration: Duration,
    /// After this long without a renewal, we do not write any more.
    pub renew_deadline: Duration,
    /// Between two tries.
    pub retry: Duration,
}

/// Whether we lead. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leadership {
    /// When the last renewal was sent, in milliseconds after the boot, plus one; 0 if we never led.
    renewed: Arc<AtomicU64>,
    renew_deadline: Duration,
    duration: Duration,
}

impl Leadership {
    /// Nobody leads yet.
    pub(crate) fn new(LeaseConfig { renew_deadline, duration, .. }: &LeaseConfig) -> Self {
        let (renew_deadline, duration) = (*renew_deadline, *duration);
        Self { renewed: Arc::default(), renew_deadline, duration }
    }

    /// Whether our last renewal is young enough.
    pub(crate) fn holds(&self) -> bool {
        self.remaining().is_some()
    }

    /// How long until somebody else may lead; none if our last renewal is not young enough.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let renewed = self.renewed.load(Ordering::Acquire).checked_sub(1)?;
        let age = since_boot().saturating_sub(Duration::from_millis(renewed));
        (age < self.renew_deadline).then(|| self.duration.saturating_sub(age))
    }

    fn renewed_at(&self, sent: Duration) {
        let millis = u64::try_from(sent.as_millis()).unwrap_or(u64::MAX - 1);
        self.renewed.store(millis + 1, Ordering::Release);
    }

    fn lost(&self) {
        self.renewed.store(0, Ordering::Release);
    }
}

/// The time since the boot, with what the machine was suspended: another may have taken the lead meanwhile.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// The other holder as we saw it.
struct Seen {
    version: Option<String>,
    since: Instant,
}

/// Takes and keeps the lead.
pub(crate) struct Elector {
    config: LeaseConfig,
    api: Api<Lease>,
    leadership: Leadership,
    seen: Option<Seen>,
}

impl Elector {
    /// `client` must not be one that only leaders may write with.
    pub(crate) fn new(config: LeaseConfig, client: Client, leadership: Leadership) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        Self { config, api, leadership, seen: None }
    }

    /// Returns once we lead, or at `shutdown`.
    pub(crate) async fn acquire(&mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() && !self.step().await {
            self.pause(shutdown).await;
        }
    }

    /// Keeps the lead; returns when it is lost, or at `shutdown`.
    pub(crate) async fn keep(&mut self, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() && self.leadership.holds() {
            self.pause(shutdown).await;
            if !shutdown.is_cancelled() {
                self.step().await;
            }
        }
    }

    /// Gives the lead up, so that the next one need not wait.
    pub(crate) async fn release(&mut self) {
        self.leadership.lost();
        let Ok(Ok(Some(lease))) = tokio::time::timeout(self.config.retry, self.api.get_opt(&self.config.name)).await
        else {
            return;
        };
        if holder(&lease) == Some(&self.config.identity) {
            let released = self.claimed(Some(&lease), "");
            let replace = self.replace(&released);
            if tokio::time::timeout(self.config.retry, replace).await.is_err() {
                tracing::debug!("the Lease was not released: it ends by itself");
            }
        }
    }

    async fn pause(&self, shutdown: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(self.config.retry) => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Looks at the Lease once, and takes or renews it if it is free or ours; whether we lead now.
    async fn step(&mut self) -> bool {
        let sent = since_boot();
        match tokio::time::timeout(self.config.renew_deadline / 2, self.try_hold()).await {
            Ok(Ok(true)) => {
                if !self.leadership.holds() {
                    tracing::info!(identity = self.config.identity, "leading");
                }
                self.leadership.renewed_at(sent);
            }
            // Somebody else holds it.
            Ok(Ok(false)) => self.leadership.lost(),
            // Not known: what we hold, we hold until the deadline.
            Ok(Err(error)) => tracing::warn!(%error, "the Lease cannot be renewed"),
            Err(_) => tracing::warn!("the Lease cannot be renewed: the API server does not answer"),
        }
        self.leadership.holds()
    }

    async fn try_hold(&mut self) -> Result<bool, kube::Error> {
        let lease = self.api.get_opt(&self.config.name).await?;
        let Some(lease) = lease else {
            let created = self.api.create(&PostParams::default(), &self.claimed(None, &self.config.identity)).await;
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
        outcome(self.replace(&self.claimed(Some(&lease), &self.config.identity)).await)
    }

    /// Whether the other holder was not seen to renew for as long as a lease lasts.
    fn has_expired(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone();
        // Whoever holds it may have been told to hold it for longer than we would.
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
        let theirs = Duration::from_secs(seconds.max(0).unsigned_abs().into());
        match &self.seen {
            Some(seen) if seen.version == version => seen.since.elapsed() >= self.config.duration.max(theirs),
            _ => {
                self.seen = Some(Seen { version, since: Instant::now() });
                false
            }
        }
    }

    /// Fails if the Lease changed since it was read.
    async fn replace(&self, lease: &Lease) -> Result<(), kube::Error> {
        self.api.replace(&self.config.name, &PostParams::default(), lease).await.map(drop)
    }

    fn claimed(&self, lease: Option<&Lease>, holder_identity: &str) -> Lease {
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

/// A conflict means that somebody else was faster.
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
    fn a_write_may_not_outlast_the_lease() {
        let config = LeaseConfig {
            namespace: String::new(),
            name: String::new(),
            identity: String::new(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        };
        let leadership = Leadership::new(&config);
        assert_eq!(leadership.remaining(), None, "nobody leads at first");
        let renewed = |seconds_ago: u64| {
            leadership.renewed_at(since_boot() - Duration::from_secs(seconds_ago));
            leadership.remaining()
        };
        assert!(renewed(9).is_some_and(|left| left <= Duration::from_secs(6)));
        assert_eq!(renewed(10), None);
    }

    #[test]
    fn the_clock_of_the_lead_goes_on_while_the_machine_is_suspended() {
        // The kernel tells the uptime by that clock.
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux");
        let uptime: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds");
        assert!((since_boot().as_secs_f64() - uptime).abs() < 1.0, "{uptime}");
    }
}
