//! Finds the user of a token's subject, with a cache.
//!
//! Concurrent requests of one subject share one query. A request that posts events needs only the id, which never changes:
//! the statement that accepts them reads whether the user is enabled and exists. So a known user costs no query. For
//! reads, disabling or enabling a user takes effect within [`STATE_MAX_AGE`].

use std::time::{Duration, Instant};

use moka::future::Cache;
use pulse_http::{Problem, ProblemCode};
use pulse_store::Store;

use crate::error::{store_failed, user_disabled};

/// Age from which the state of a cached user is read again.
const STATE_MAX_AGE: Duration = Duration::from_secs(10);
/// Time without a request after which a user is forgotten.
const CACHE_TTL: Duration = Duration::from_hours(1);
/// Maximum number of cached users; an entry takes less than 500 bytes.
const MAX_CACHED_USERS: u64 = 50_000;

#[derive(Clone, Copy)]
struct CachedUser {
    id: i64,
    disabled: bool,
    read_at: Instant,
}

/// The users of this instance.
pub(crate) struct Users {
    store: Store,
    auto_provision: bool,
    cache: Cache<String, CachedUser>,
}

impl Users {
    pub(crate) fn new(store: Store, auto_provision: bool) -> Self {
        let cache = Cache::builder().max_capacity(MAX_CACHED_USERS).time_to_idle(CACHE_TTL).build();
        Self { store, auto_provision, cache }
    }

    /// Returns the id of the user with this subject, who may be disabled or deleted in the meantime.
    ///
    /// # Errors
    /// 403 `unknown_user` if the user does not exist and users are not created on first use, 503 `unavailable`.
    pub(crate) async fn id_of(&self, subject: &str) -> Result<i64, Problem> {
        Ok(self.cached(subject).await?.id)
    }

    /// Returns the id of the user with this subject, who is enabled.
    ///
    /// # Errors
    /// As [`Users::id_of`], and 403 `user_disabled`.
    pub(crate) async fn id_of_enabled(&self, subject: &str) -> Result<i64, Problem> {
        let mut user = self.cached(subject).await?;
        if user.read_at.elapsed() > STATE_MAX_AGE {
            self.invalidate(subject).await;
            user = self.cached(subject).await?;
        }
        if user.disabled { Err(user_disabled()) } else { Ok(user.id) }
    }

    async fn cached(&self, subject: &str) -> Result<CachedUser, Problem> {
        self.cache
            .try_get_with_by_ref(subject, self.find(subject))
            .await
            .map_err(|problem: std::sync::Arc<Problem>| Problem::clone(&problem))
    }

    /// Removes the subject from the cache, because its user was deleted.
    pub(crate) async fn invalidate(&self, subject: &str) {
        self.cache.invalidate(subject).await;
    }

    async fn find(&self, subject: &str) -> Result<CachedUser, Problem> {
        let found = if self.auto_provision {
            self.store.find_or_create_user(subject).await.map(Some)
        } else {
            self.store.find_user(subject).await
        };
        match found.map_err(store_failed)? {
            Some(user) => Ok(CachedUser { id: user.id, disabled: user.disabled_at.is_some(), read_at: Instant::now() }),
            None => {
                let detail = "the user of this token does not exist: ask an administrator to create it";
                Err(Problem::new(ProblemCode::UnknownUser, detail))
            }
        }
    }
}
