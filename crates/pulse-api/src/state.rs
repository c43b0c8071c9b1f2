//! The state that all handlers share.

use std::ops::Deref;
use std::sync::Arc;

use pulse_core::Limits;
use pulse_http::Verifier;
use pulse_queue::Publisher;
use pulse_store::{Acceptor, Store};

use crate::metrics::ApiMetrics;
use crate::users::Users;

/// Configuration of the API.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Limits of one event.
    pub limits: Limits,
    /// Maximum number of events in a batch.
    pub max_batch: usize,
    /// Maximum number of attempts of a task.
    pub max_attempts: i32,
    /// Whether the user of a valid token is created on first use.
    pub auto_provision: bool,
}

/// State of the API. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Api>);

/// The content of [`AppState`].
pub struct Api {
    pub(crate) limits: Limits,
    pub(crate) max_batch: usize,
    pub(crate) max_attempts: i32,
    pub(crate) store: Store,
    pub(crate) acceptor: Acceptor,
    pub(crate) publisher: Publisher,
    pub(crate) verifier: Verifier,
    pub(crate) metrics: ApiMetrics,
    pub(crate) users: Users,
}

impl AppState {
    /// Creates the state. Does not connect to anything yet.
    pub fn new(
        config: ApiConfig,
        store: Store,
        acceptor: Acceptor,
        publisher: Publisher,
        verifier: Verifier,
        metrics: ApiMetrics,
    ) -> Self {
        let ApiConfig { limits, max_batch, max_attempts, auto_provision } = config;
        Self(Arc::new(Api {
            limits,
            max_batch,
            max_attempts,
            users: Users::new(store.clone(), auto_provision),
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
