//! What every handler works with, built once.

use std::ops::Deref;
use std::sync::Arc;

use pulse_core::Limits;
use pulse_http::Verifier;
use pulse_queue::Publisher;
use pulse_store::{Acceptor, Store};

use crate::cursor::Cursors;
use crate::metrics::ApiMetrics;
use crate::users::Users;

/// What may be told about the API.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// How large an event may be.
    pub limits: Limits,
    /// The most events of a batch.
    pub max_batch: usize,
    /// How many attempts a task may take.
    pub max_attempts: i32,
    /// Whether the user of a valid token is created on first use.
    pub auto_provision: bool,
    /// Signs cursors: the same in every replica.
    pub cursor_key: [u8; 32],
}

/// The API's parts. Cheap to clone.
#[derive(Clone)]
pub struct AppState(Arc<Api>);

/// See [`AppState`].
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
    pub(crate) cursors: Cursors,
}

impl AppState {
    /// Puts the parts together. Nothing is connected to yet.
    pub fn new(
        config: ApiConfig,
        store: Store,
        acceptor: Acceptor,
        publisher: Publisher,
        verifier: Verifier,
        metrics: ApiMetrics,
    ) -> Self {
        let ApiConfig { limits, max_batch, max_attempts, auto_provision, cursor_key } = config;
        Self(Arc::new(Api {
            limits,
            max_batch,
            max_attempts,
            users: Users::new(store.clone(), auto_provision),
            cursors: Cursors::new(&cursor_key),
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
