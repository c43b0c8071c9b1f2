//! Finds the user of a token's subject, with a cache.
//!
//! Concurrent requests of one subject share one query. Disabling or enabling a user takes effect within [`CACHE_TTL`].

use std::time::Duration;

use moka::future::Cache;
use pulse_http::{Problem, ProblemCode};
use pulse_store::Store;

use crate::error::store_failed;

/// Time for which a user is cached.
const CACHE_TTL: Duration = Duration::from_secs(10);
/// Maximum number of cached users; an entry takes less than 500 bytes.
const MAX_CACHED_USERS: u64 = 50_000;

#[derive(Clone, Copy)]
struct CachedUser {
    id: i64,
    disabled: bool,
}

/// The users of this instance.
pub(crate) struct Users {
    store: Store,
    auto_provision: bool,
    cache: Cache<String, CachedUser>,
}

impl Users {
    pub(crate) fn new(store: Store, auto_provision: bool) -> Self {
        let cache = Cache::builder().max_capacity(MAX_CACHED_USERS).time_to_live(CACHE_TTL).build();
        Self { store, auto_provision, cache }
    }

    /// Returns the id of the user with this subject.
    ///
    /// # Errors
    /// 403 `unknown_user` if the user does not exist and users are not created on first use, 403 `user_disabled`,
    /// 503 `unavailable`.
    pub(crate) async fn id_of(&self, subject: &str) -> Result<i64, Problem> {
        let user = self
            .cache
            .try_get_with_by_ref(subject, self.find(subject))
            .await
            .map_err(|problem: std::sync::Arc<Problem>| Problem::clone(&problem))?;
        if user.disabled {
            let detail = "the user of this token is disabled: ask an administrator to enable it";
            return Err(Problem::new(ProblemCode::UserDisabled, detail));
        }
        Ok(user.id)
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
            Some(user) => Ok(CachedUser { id: user.id, disabled: user.disabled_at.is_some() }),
            None => {
                let detail = "the user of this token does not exist: ask an administrator to create it";
                Err(Problem::new(ProblemCode::UnknownUser, detail))
            }
        }
    }
}
