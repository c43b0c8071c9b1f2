//! From a token's subject to a user, looked up once every few seconds.
//!
//! Requests of one subject that arrive together share one look-up. A user that was disabled, or enabled, is known to be
//! so after [`MAX_AGE`].

use std::time::Duration;

use axum::http::StatusCode;
use moka::future::Cache;
use pulse_http::Problem;
use pulse_store::Store;

use crate::error::store_failed;

/// How long a user is believed to be as it was.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Users that are remembered, at the most; an entry costs less than 500 bytes.
const CAPACITY: u64 = 50_000;

#[derive(Clone, Copy)]
struct KnownUser {
    id: i64,
    disabled: bool,
}

/// The users of this ingest.
pub(crate) struct Users {
    store: Store,
    auto_provision: bool,
    known: Cache<String, KnownUser>,
}

impl Users {
    pub(crate) fn new(store: Store, auto_provision: bool) -> Self {
        let known = Cache::builder().max_capacity(CAPACITY).time_to_live(MAX_AGE).build();
        Self { store, auto_provision, known }
    }

    /// The id of the user with this subject.
    ///
    /// # Errors
    /// 403 `unknown_user` if there is none and it may not be created, 403 `user_disabled`, 503 `unavailable`.
    pub(crate) async fn id_of(&self, subject: &str) -> Result<i64, Problem> {
        let user = self
            .known
            .try_get_with_by_ref(subject, self.find(subject))
            .await
            .map_err(|problem: std::sync::Arc<Problem>| Problem::clone(&problem))?;
        if user.disabled {
            let detail = "the user of this token is disabled: ask an administrator";
            return Err(Problem::new(StatusCode::FORBIDDEN, "user_disabled", detail));
        }
        Ok(user.id)
    }

    /// Forgets what is known of this subject, because it turned out to be wrong.
    pub(crate) async fn forget(&self, subject: &str) {
        self.known.invalidate(subject).await;
    }

    async fn find(&self, subject: &str) -> Result<KnownUser, Problem> {
        let found = if self.auto_provision {
            self.store.find_or_create_user(subject).await.map(Some)
        } else {
            self.store.find_user(subject).await
        };
        match found.map_err(store_failed)? {
            Some(user) => Ok(KnownUser { id: user.id, disabled: user.disabled_at.is_some() }),
            None => {
                let detail = "the user of this token is not known here: ask an administrator";
                Err(Problem::new(StatusCode::FORBIDDEN, "unknown_user", detail))
            }
        }
    }
}
