//! The keys of an identity provider, which serves them as a JSON Web Key Set.
//!
//! They are read again every few minutes, and at once when a token names a key that is not known. While the provider does
//! not answer, the last keys stay in use.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Uri;
use pulse_tls::CaBundle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use crate::tokens::fetch::Fetcher;
use crate::tokens::key_set::{self, KeySet};
use crate::tokens::loaded::Loaded;

/// Time between two reads.
const PERIOD: Duration = Duration::from_secs(300);
/// Delay after the first failed read; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Age from which keys are no longer used. Tokens of a provider that is away for so long have expired.
pub(crate) const MAX_AGE: Duration = Duration::from_hours(24);
/// Reads for unknown keys that may follow each other at once. One more may follow after each [`EXTRA_PERIOD`].
const EXTRA_READS: u32 = 4;
const EXTRA_PERIOD: Duration = Duration::from_secs(15);
/// Time for which a request waits for such a read.
const WAIT: Duration = Duration::from_secs(3);
/// Requests that may wait for one, so that tokens with made-up keys leave most places in flight to others.
const MAX_WAITING: usize = 256;

/// Where the keys are.
#[derive(Debug, Clone)]
pub struct JwksConfig {
    /// URL of the JSON Web Key Set.
    pub url: Uri,
    /// CA of its server; `None` means those of the system.
    pub ca: Option<CaBundle>,
}

/// Parses the URL of a JSON Web Key Set.
///
/// # Errors
/// If it is neither `https` nor an address of this machine: who is between could replace the keys.
pub fn jwks_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("{error}"))?;
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let has_user = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
    match url.scheme_str() {
        _ if has_user => Err("the URL must not have a user".to_owned()),
        Some("https") => Ok(url),
        Some("http") if is_local => Ok(url),
        _ => {
            Err("write it like https://issuer.example/jwks.json: without TLS, others could replace the keys".to_owned())
        }
    }
}

/// Asks for reads before their time.
#[derive(Clone)]
pub(crate) struct Jwks(Arc<Shared>);

struct Shared {
    wake: Notify,
    extra: Mutex<Extra>,
    waiting: Semaphore,
}

struct Extra {
    /// Number of reads that have begun.
    begun: u64,
    /// The read that was asked for, counted from 1, if it has not ended.
    wanted: Option<u64>,
    reads: u32,
    at: Instant,
}

impl Jwks {
    fn new() -> Self {
        Self(Arc::new(Shared {
            wake: Notify::new(),
            extra: Mutex::new(Extra { begun: 0, wanted: None, reads: EXTRA_READS, at: Instant::now() }),
            waiting: Semaphore::new(MAX_WAITING),
        }))
    }

    /// Starts to read the keys, for as long as a verifier receives them.
    pub(crate) fn start(config: &JwksConfig) -> (Self, watch::Receiver<Loaded>) {
        let jwks = Self::new();
        let (sender, receiver) = watch::channel(Loaded::default());
        let fetcher = Fetcher::new(config.url.clone(), config.ca.as_ref());
        tokio::spawn(jwks.clone().run(fetcher, sender));
        (jwks, receiver)
    }

    async fn run(self, fetcher: Fetcher, sender: watch::Sender<Loaded>) {
        let mut failures = 0;
        loop {
            self.extra().begun += 1;
            let outcome = read(&fetcher).await;
            failures = if outcome.is_ok() { 0 } else { failures + 1 };
            if let Err(problem) = &outcome {
                tracing::warn!(problem, "cannot read the keys of tokens from --jwks-url: the last ones stay in use");
            }
            self.note(&sender, outcome);
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(pause(failures)) => {}
                () = self.0.wake.notified() => {}
            }
        }
    }

    fn note(&self, sender: &watch::Sender<Loaded>, outcome: Result<KeySet, String>) {
        let mut extra = self.extra();
        sender.send_modify(|loaded| loaded.note(outcome));
        if extra.wanted.is_some_and(|wanted| wanted <= extra.begun) {
            extra.wanted = None;
        }
    }

    /// Waits for a read that follows the first `attempts`, whose keys lack that of a token. Returns whether there was one.
    pub(crate) async fn read_after(&self, attempts: u64, mut loaded: watch::Receiver<Loaded>) -> bool {
        let Ok(_place) = self.0.waiting.try_acquire() else { return false };
        let Some(wanted) = self.ask_for_read(attempts, &loaded) else { return false };
        let read = loaded.wait_for(|loaded| loaded.attempts >= wanted);
        tokio::time::timeout(WAIT, read).await.is_ok_and(|read| read.is_ok())
    }

    /// Asks for one read for all requests that lack a key, and returns its number; `None` if there were too many. A read that
    /// has begun already may lack the key too.
    fn ask_for_read(&self, attempts: u64, loaded: &watch::Receiver<Loaded>) -> Option<u64> {
        let mut extra = self.extra();
        let ended = loaded.borrow().attempts;
        if ended != attempts {
            return Some(ended);
        }
        if extra.wanted.is_none() && extra.take(Instant::now()) {
            extra.wanted = Some(extra.begun + 1);
            self.0.wake.notify_one();
        }
        extra.wanted
    }

    fn extra(&self) -> MutexGuard<'_, Extra> {
        self.0.extra.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Extra {
    fn take(&mut self, now: Instant) -> bool {
        while self.reads < EXTRA_READS && now.duration_since(self.at) >= EXTRA_PERIOD {
            self.reads += 1;
            self.at += EXTRA_PERIOD;
        }
        if self.reads == EXTRA_READS {
            self.at = now;
        }
        let Some(left) = self.reads.checked_sub(1) else { return false };
        self.reads = left;
        true
    }
}

/// Time until the next read after this many failed ones.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => PERIOD,
        _ => FIRST_RETRY.saturating_mul(1 << (failures - 1).min(6)).min(LAST_RETRY),
    }
}

async fn read(fetcher: &Fetcher) -> Result<KeySet, String> {
    let document = fetcher.fetch().await?;
    let (keys, refused) = key_set::served_keys(&document).map_err(|error| error.to_string())?;
    for error in refused {
        tracing::warn!(%error, "a key of --jwks-url cannot be used");
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jwks_url_is_encrypted_or_local() {
        for good in ["https://a.example/jwks", "http://127.0.0.1:1/x", "http://[::1]/", "http://localhost:9/jwks"] {
            assert!(jwks_url(good).is_ok(), "{good}");
        }
        for bad in ["", "jwks", "/jwks", "http://a.example/jwks", "ftp://a.example", "https://u:p@a.example/"] {
            assert!(jwks_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pause_doubles_with_each_failure_up_to_a_minute() {
        let seconds = [0, 1, 2, 3, 6, 7, 40].map(|failures| pause(failures).as_secs());
        assert_eq!(seconds, [300, 1, 2, 4, 32, 60, 60]);
    }

    #[test]
    fn reads_for_unknown_keys_are_rare_after_a_few() {
        let start = Instant::now();
        let mut extra = Extra { begun: 0, wanted: None, reads: EXTRA_READS, at: start };
        let mut taken = |after: Duration| (0..10).filter(|_| extra.take(start + after)).count();
        assert_eq!(taken(Duration::ZERO), 4);
        assert_eq!(taken(EXTRA_PERIOD), 1);
        assert_eq!(taken(Duration::from_hours(1)), 4);
    }

    #[test]
    fn requests_at_the_time_of_a_read_take_one_read_together() {
        let (jwks, (sender, loaded)) = (Jwks::new(), watch::channel(Loaded::default()));
        assert!((0..9).all(|_| jwks.ask_for_read(0, &loaded) == Some(1)));
        jwks.extra().begun += 1;
        assert!((0..9).all(|_| jwks.ask_for_read(0, &loaded) == Some(1)));
        jwks.note(&sender, Err("no answer".to_owned()));
        assert_eq!(jwks.ask_for_read(0, &loaded), Some(1), "the read that ended is enough");
        assert_eq!(jwks.extra().reads, EXTRA_READS - 1);
    }

    #[test]
    fn read_that_had_begun_before_a_request_is_not_enough() {
        let (jwks, (sender, loaded)) = (Jwks::new(), watch::channel(Loaded::default()));
        jwks.extra().begun += 1;
        assert_eq!(jwks.ask_for_read(0, &loaded), Some(2));
        jwks.note(&sender, Err("no answer".to_owned()));
        assert_eq!(jwks.ask_for_read(1, &loaded), Some(2));
        assert_eq!(jwks.extra().reads, EXTRA_READS - 1);
    }
}
