//! Finds the user of a token's subject, with caches.
//!
//! Concurrent requests of one subject share one query. A request that posts events needs only the id, which never changes:
//! the statement that accepts them reads whether the user is enabled and exists. So a known user costs no query. For
//! reads, disabling or enabling a user takes effect within [`STATE_MAX_AGE`].
//!
//! Users are created one at a time, and only so many per minute: a flood of new subjects fills neither the table nor the
//! connections that find the users of others.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use pulse_core::UserLimits;
use pulse_http::{Problem, ProblemCode};
use pulse_store::{LimitsUpdate, Store, User};
use tokio::sync::Semaphore;

use crate::error::{store_failed, user_disabled};
use crate::limits::{Limits, Usage};

/// Age from which the state of a user is read again.
const STATE_MAX_AGE: Duration = Duration::from_secs(10);
/// Time without a request after which a user is forgotten.
const CACHE_TTL: Duration = Duration::from_hours(1);
/// Maximum number of cached users; an entry takes less than 500 bytes.
const MAX_CACHED_USERS: u64 = 50_000;

/// What never changes of a user, and what the user uses.
#[derive(Debug, Clone)]
pub(crate) struct KnownUser {
    pub(crate) id: i64,
    pub(crate) usage: Arc<Usage>,
}

/// What was read from PostgreSQL less than [`STATE_MAX_AGE`] ago.
#[derive(Clone, Copy)]
struct State {
    id: i64,
    disabled: bool,
    limits: UserLimits,
}

/// The users of this instance.
pub(crate) struct Users {
    store: Store,
    auto_provision: bool,
    limits: Arc<Limits>,
    known: Cache<String, KnownUser>,
    states: Cache<String, State>,
    creating: Semaphore,
}

impl Users {
    pub(crate) fn new(store: Store, auto_provision: bool, limits: Arc<Limits>) -> Self {
        let known = Cache::builder().max_capacity(MAX_CACHED_USERS).time_to_idle(CACHE_TTL).build();
        let states = Cache::builder().max_capacity(MAX_CACHED_USERS).time_to_live(STATE_MAX_AGE).build();
        Self { store, auto_provision, limits, known, states, creating: Semaphore::new(1) }
    }

    /// Returns the user with this subject, who may be disabled or deleted in the meantime.
    ///
    /// # Errors
    /// 403 `unknown_user` if the user does not exist and users are not created on first use, 429 `rate_limited` if too
    /// many are created, 503 `unavailable`.
    pub(crate) async fn find(&self, subject: &str) -> Result<KnownUser, Problem> {
        let known = async {
            let State { id, limits, .. } = self.state(subject).await?;
            Ok(KnownUser { id, usage: Arc::new(Usage::new(limits)) })
        };
        self.known.try_get_with_by_ref(subject, known).await.map_err(unshared)
    }

    /// Returns the user with this subject, who is enabled.
    ///
    /// # Errors
    /// As [`Users::find`], and 403 `user_disabled`.
    pub(crate) async fn find_enabled(&self, subject: &str) -> Result<KnownUser, Problem> {
        let state = self.state(subject).await?;
        if state.disabled {
            return Err(user_disabled());
        }
        let known = self.find(subject).await?;
        if known.id == state.id {
            return Ok(known);
        }
        // The user was deleted, and another one has the subject.
        self.invalidate(subject).await;
        self.find(subject).await
    }

    /// Removes the subject from the caches, because its user was deleted.
    pub(crate) async fn invalidate(&self, subject: &str) {
        self.states.invalidate(subject).await;
        self.known.invalidate(subject).await;
    }

    /// Applies what has changed of the limits.
    pub(crate) async fn apply(&self, update: LimitsUpdate) {
        let LimitsUpdate { api_processes, changed, read_at: _ } = update;
        self.limits.share(api_processes);
        for (subject, limits) in changed {
            if let Some(user) = self.known.get(&subject).await {
                user.usage.set_limits(limits);
            }
        }
    }

    async fn state(&self, subject: &str) -> Result<State, Problem> {
        self.states.try_get_with_by_ref(subject, self.read(subject)).await.map_err(unshared)
    }

    async fn read(&self, subject: &str) -> Result<State, Problem> {
        let User { id, disabled_at, limits, .. } = match self.store.find_user(subject).await.map_err(store_failed)? {
            Some(user) => user,
            None if self.auto_provision => self.create(subject).await?,
            None => {
                let detail = "the user of this token does not exist: ask an administrator to create it";
                return Err(Problem::new(ProblemCode::UnknownUser, detail));
            }
        };
        Ok(State { id, disabled: disabled_at.is_some(), limits })
    }

    async fn create(&self, subject: &str) -> Result<User, Problem> {
        self.limits.take_new_user()?;
        // The commit takes much longer than a look-up, so one of the connections stays free for look-ups and probes.
        let _turn = self.creating.acquire().await.expect("the semaphore is never closed");
        self.store.create_user(subject).await.map_err(store_failed)
    }
}

/// The problem of each request that waited for the same query.
fn unshared(problem: Arc<Problem>) -> Problem {
    Problem::clone(&problem)
}
