//! The state that all handlers share.

use std::ops::Deref;
use std::sync::Arc;

use pulse_core::{Limits as EventLimits, UserLimits};
use pulse_http::Verifier;
use pulse_queue::Publisher;
use pulse_store::{Acceptor, Store};

use crate::limits::Limits;
use crate::limits_update;
use crate::metrics::ApiMetrics;
use crate::users::Users;

/// Configuration of the API.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Limits of one event.
    pub limits: EventLimits,
    /// Maximum number of events in a batch.
    pub max_batch: usize,
    /// Maximum number of attempts of a task.
    pub max_attempts: i32,
    /// Whether the user of a valid token is created on first use.
    pub auto_provision: bool,
    /// Maximum number of users that this process creates per minute; 0 means no limit.
    pub max_new_users_per_minute: u32,
    /// Limits of the instance, which those of a user come before.
    pub user_limits: UserLimits,
    /// Unique name of this process, among the API processes that share the rates of users.
    pub process: String,
}

/// State of the API. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Api>);

/// The content of [`AppState`].
pub struct Api {
    pub(crate) event_limits: EventLimits,
    pub(crate) max_batch: usize,
    pub(crate) max_attempts: i32,
    pub(crate) store: Store,
    pub(crate) acceptor: Acceptor,
    pub(crate) publisher: Publisher,
    pub(crate) verifier: Verifier,
    pub(crate) metrics: ApiMetrics,
    pub(crate) users: Arc<Users>,
    pub(crate) limits: Arc<Limits>,
}

impl AppState {
    /// Creates the state, and keeps the limits of users up to date in the background until it is dropped.
    pub fn new(
        config: ApiConfig,
        store: Store,
        acceptor: Acceptor,
        publisher: Publisher,
        verifier: Verifier,
        metrics: ApiMetrics,
    ) -> Self {
        let ApiConfig { limits: event_limits, max_batch, max_attempts, auto_provision, .. } = config;
        let limits = Limits::new(config.user_limits, config.max_new_users_per_minute, metrics.clone());
        let limits = Arc::new(limits);
        let users = Arc::new(Users::new(store.clone(), auto_provision, limits.clone()));
        tokio::spawn(limits_update::run(store.clone(), config.process, Arc::downgrade(&users)));
        Self(Arc::new(Api {
            event_limits,
            max_batch,
            max_attempts,
            users,
            limits,
            store,
            acceptor,
            publisher,
            verifier,
            metrics,
        }))
    }
}

impl Deref for AppState {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.0
    }
}
